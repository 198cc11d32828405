// Drives the pages as a person would. Everything it needs comes as JSON in `AGNES_PAGES`; it
// prints what it saw, one line each, and ends with 1 at the first thing that is not as it
// should be.
import { readFileSync, readdirSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { join } from "node:path";

const given = JSON.parse(process.env.AGNES_PAGES);
const require = createRequire(join(given.tools, "node_modules", "x.js"));
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

const browser = await chromium.launch({
  executablePath: given.browser,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync"],
});

function check(right, what) {
  if (!right) throw new Error(`not so: ${what}`);
}

/** A page of a new person; what its policy forbids and what its scripts throw is kept. */
async function person(scheme = "light") {
  const context = await browser.newContext({ colorScheme: scheme, viewport: { width: 1000, height: 760 } });
  const page = await context.newPage();
  page.setDefaultTimeout(120_000);
  page.wrong = [];
  page.on("pageerror", (error) => page.wrong.push(String(error)));
  page.on("console", (said) => {
    if (said.type() === "error" && !/status of (400|401|403|404)/.test(said.text())) page.wrong.push(said.text());
  });
  page.on("request", (asked) => {
    const url = asked.url();
    if (!url.startsWith(given.server) && !url.startsWith("http://127.0.0.1:")) page.wrong.push(`asked for ${url}`);
  });
  return page;
}

async function open(page, path) {
  await page.goto(new URL(path, given.server).href);
}

/** Clicks what leads to another page, and waits for that page: a click alone does not. */
async function press(page, name, role = "button") {
  await Promise.all([page.waitForEvent("framenavigated"), page.getByRole(role, { name, exact: true }).click()]);
  await page.waitForLoadState();
}

/** The mail number `n`, decoded as far as links need it. */
async function mail(n) {
  for (let tries = 0; tries < 600; tries += 1) {
    const names = readdirSync(given.mails).filter((name) => name.endsWith(".eml"));
    if (names.length >= n) {
      const text = readFileSync(join(given.mails, `${n}.eml`), "utf8");
      return text.replaceAll(/=\r?\n/g, "").replaceAll("=3D", "=");
    }
    await new Promise((done) => setTimeout(done, 50));
  }
  throw new Error(`mail ${n} did not come`);
}

/** Path of the link in a mail: the page is served elsewhere than its link says. */
function link(text, page) {
  const found = text.match(new RegExp(`https?://[^/\\s]+(${page}\\?\\S+)`));
  check(found, `a link to ${page} in ${text}`);
  return found[1];
}

async function fits(page, where) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => axe.run(document, { resultTypes: ["violations"] }));
  const bad = violations.filter((one) => ["serious", "critical", "moderate"].includes(one.impact));
  check(bad.length === 0, `accessible: ${where}: ${JSON.stringify(bad.map((one) => [one.id, one.nodes.map((n) => n.html)]))}`);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth);
  check(!wide, `nothing wider than the window: ${where}`);
  check(page.wrong.length === 0, `clean: ${where}: ${page.wrong.join("; ")}`);
  if (given.pictures) await page.screenshot({ path: join(given.pictures, `${where.replaceAll(/\W+/g, "-")}.png`), fullPage: true });
  console.log(`fits: ${where}`);
}

async function signIn(page, email, password, next = "") {
  await open(page, `/login/password${next}`);
  await page.getByLabel("Email").fill(email);
  await page.getByLabel("Password", { exact: true }).fill(password);
  await press(page, "Sign in");
}

const at = (page) => page.url().slice(given.server.length);

async function run() {
  // The first Admin.
  const first = await person();
  await open(first, "/");
  check(at(first) === "/login", at(first));
  await fits(first, "sign-in of a new installation");
  await open(first, given.setup);
  await fits(first, "first-time setup");
  await first.getByLabel("Your email").fill("ann@acme.example");
  await first.getByLabel("Your name").fill("Ann <b>Admin</b>");
  await first.getByLabel("Password", { exact: true }).fill("correct horse battery");
  await first.getByRole("button", { name: "Show" }).click();
  check((await first.getByLabel("Password", { exact: true }).getAttribute("type")) === "text", "the password is shown");
  await press(first, "Make me the first Admin");
  check(at(first) === "/dashboard", at(first));
  check((await first.locator("h1").textContent()).includes("Ann <b>Admin</b>"), "a name is text");
  await fits(first, "home");
  // A token, copied as a whole command; the page never shows it.
  await first.context().grantPermissions(["clipboard-read", "clipboard-write"], { origin: given.server });
  await first.getByRole("button", { name: "Make a token and copy this" }).click();
  await first.getByText("Copied.").waitFor();
  const copied = await first.evaluate(() => navigator.clipboard.readText());
  const token = copied.match(/AGNES_TOKEN=(\S+)/)[1];
  check(!copied.includes("YOUR_TOKEN") && !(await first.content()).includes(token), "the token is in no page");
  const me = await fetch(new URL("/auth/me", given.server), { headers: { Authorization: `Bearer ${token}` } });
  check((await me.json()).auth.type === "pat", "the copied token works");
  // Signing out ends it.
  await press(first, "Sign out");
  check(at(first).startsWith("/login?msg=signed_out"), at(first));
  await first.getByText("You are signed out.").waitFor();
  await open(first, "/dashboard");
  check(at(first) === "/login?next=/dashboard", at(first));

  // A wrong password, then the right one; then where they wanted to go.
  await signIn(first, "ann@acme.example", "wrong", "?next=/setup");
  check((await first.getByRole("alert").textContent()).includes("do not fit"), "it says so");
  await fits(first, "a wrong password");
  await signIn(first, "ann@acme.example", "correct horse battery", "?next=/setup");
  check(at(first) === "/setup", at(first));
  await fits(first, "setup page, signed in");

  // By keyboard alone.
  const keys = await person("dark");
  await open(keys, "/login/password");
  await keys.keyboard.press("Tab");
  check((await keys.evaluate(() => document.activeElement.className)) === "skip", "the first stop skips the header");
  await keys.getByLabel("Email").focus();
  await keys.keyboard.type("ann@acme.example");
  await keys.keyboard.press("Tab");
  await keys.keyboard.type("correct horse battery");
  await Promise.all([keys.waitForURL("**/dashboard"), keys.keyboard.press("Enter")]);
  await fits(keys, "home, dark");

  // The command line waits on a port of this machine.
  const waiting = createServer((_, answer) => answer.end("done")).unref();
  await new Promise((up) => waiting.listen(0, "127.0.0.1", up));
  await open(keys, `/cli/auth/start?port=${waiting.address().port}&state=s-1`);
  await fits(keys, "command line, dark");
  await press(keys, "Sign in the command line");
  const back = new URL(keys.url());
  check(back.pathname === "/callback" && back.searchParams.get("state") === "s-1", back.href);
  const exchanged = await fetch(new URL("/cli/auth/exchange", given.server), {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ code: back.searchParams.get("code") }),
  });
  check((await exchanged.json()).token, "the code gives a token");
  await open(keys, "/desktop/link");
  await fits(keys, "desktop app, dark");
  await press(keys, "Link the app");
  const app = await keys.getByRole("link", { name: "Open the desktop app" }).getAttribute("href");
  check(app.startsWith("data-analyst://auth?code="), app);
  check(keys.wrong.length === 0, keys.wrong.join("; "));

  // By mail: a link that signs in, then a new password.
  const mailed = await person("dark");
  await open(mailed, "/login");
  await fits(mailed, "sign-in, dark");
  await press(mailed, "Get a link by mail", "link");
  await fits(mailed, "mail, dark");
  await mailed.getByLabel("Email").fill("ann@acme.example");
  await press(mailed, "Send me a link");
  await fits(mailed, "check your mail, dark");
  const signing = link(await mail(1), "/auth/email/verify");
  // What a scanner does.
  for (let n = 0; n < 2; n += 1) await fetch(new URL(signing, given.server));
  await open(mailed, signing);
  await fits(mailed, "landing page of a link, dark");
  await press(mailed, "Sign in");
  check(at(mailed) === "/dashboard", at(mailed));
  const late = await person("dark");
  await open(late, signing);
  await press(late, "Sign in");
  check((await late.getByRole("alert").textContent()).includes("used already"), "a link works once");
  await fits(late, "a used link, dark");
  await open(late, "/login/password");
  await press(late, "Forgot your password?", "link");
  await fits(late, "forgot the password, dark");
  await late.getByLabel("Email").fill("ann@acme.example");
  await press(late, "Send me a link");
  await open(late, link(await mail(2), "/auth/password/reset"));
  await late.getByLabel("New password").fill("another long password");
  await late.getByLabel("The same again").fill("another long passwort");
  await press(late, "Choose a new password");
  check((await late.getByRole("alert").textContent()).includes("differ"), "they differ");
  await fits(late, "a new password, dark");
  await late.getByLabel("New password").fill("another long password");
  await late.getByLabel("The same again").fill("another long password");
  await press(late, "Choose a new password");
  await late.getByText("Your new password is set.").waitFor();
  await open(mailed, "/dashboard");
  check(at(mailed).startsWith("/login"), "the session ended with the old password");
  await signIn(late, "ann@acme.example", "another long password");
  check(at(late) === "/dashboard", at(late));

  // A page that is not there, and a small window.
  const small = await person();
  await small.setViewportSize({ width: 340, height: 700 });
  for (const path of ["/login", "/login/password", "/login/password?tab=first", "/setup", "/nothing-here"]) {
    await open(small, path);
    await fits(small, `small window: ${path}`);
  }
}

try {
  await run();
  console.log("all held");
} catch (error) {
  console.error(error);
  process.exitCode = 1;
} finally {
  await browser.close();
}
