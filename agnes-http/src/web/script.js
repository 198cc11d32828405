// What pages do beyond plain HTML. Every page works without it.
"use strict";

/** Puts text on the clipboard; where the browser withholds it, into a field to copy from. */
async function copy(text, button) {
  const done = (words) => {
    const said = document.getElementById(button.dataset.says || "said");
    if (said) said.textContent = words;
  };
  try {
    await navigator.clipboard.writeText(text);
    done("Copied.");
  } catch {
    let field = document.getElementById("copied");
    if (!field) {
      field = document.createElement("textarea");
      field.id = "copied";
      field.readOnly = true;
      field.rows = 4;
      field.setAttribute("aria-label", "Text to copy");
      button.after(field);
    }
    field.value = text;
    field.select();
    done("Your browser does not let pages copy. The text is selected: press Ctrl+C.");
  }
}

/** Makes a personal access token; it lives in this page's memory alone. */
async function newToken() {
  const answer = await fetch("/auth/tokens", {
    method: "POST",
    headers: { "Content-Type": "application/json", Accept: "application/json" },
    body: JSON.stringify({ name: "made on the web page", expires_in_days: 90 }),
  });
  const body = await answer.json();
  if (!answer.ok) throw new Error(typeof body.detail === "string" ? body.detail : "no token was made");
  return body.token;
}

for (const button of document.querySelectorAll("button[data-copy]")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const source = document.getElementById(button.dataset.copy);
    let text = source.textContent;
    try {
      if (button.dataset.token) text = text.replaceAll(button.dataset.token, await newToken());
      await copy(text, button);
    } catch (error) {
      const said = document.getElementById(button.dataset.says || "said");
      if (said) said.textContent = error.message;
    }
  });
}

for (const button of document.querySelectorAll("button[data-shows]")) {
  const field = document.getElementById(button.dataset.shows);
  button.hidden = false;
  button.addEventListener("click", () => {
    const hide = field.type === "text";
    field.type = hide ? "password" : "text";
    button.textContent = hide ? "Show" : "Hide";
    button.setAttribute("aria-pressed", String(!hide));
    field.focus();
  });
}

// Two clicks are one sign-in.
for (const form of document.querySelectorAll("form")) {
  form.addEventListener("submit", (event) => {
    if (form.dataset.sent) event.preventDefault();
    form.dataset.sent = "1";
    setTimeout(() => delete form.dataset.sent, 3000);
  });
}
