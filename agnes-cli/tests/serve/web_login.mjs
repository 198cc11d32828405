// Signs somebody in with a browser, for a command line that waits. Everything it needs comes as
// JSON in `AGNES_PAGES`; it ends with 1 where a page is not as it should be.
import { createRequire } from "node:module";
import { join } from "node:path";

const given = JSON.parse(process.env.AGNES_PAGES);
const { chromium } = createRequire(join(given.tools, "node_modules", "x.js"))("playwright-core");
const browser = await chromium.launch({
  executablePath: given.browser,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync"],
});
try {
  const page = await (await browser.newContext()).newPage();
  await page.goto(given.address);
  // Somebody who is not signed in does that first, and is led back.
  const password = page.getByRole("link", { name: /password/i });
  if (!(await page.getByLabel("Email").count()) && (await password.count())) await password.first().click();
  await page.getByLabel("Email").fill(given.email);
  await page.getByLabel("Password", { exact: true }).fill(given.password);
  await page.getByRole("button", { name: "Sign in", exact: true }).click();
  await page.getByRole("heading", { name: "Sign in the command line" }).waitFor();
  await page.getByText(given.email).first().waitFor();
  await page.getByRole("button", { name: "Sign in the command line" }).click();
  await page.getByText("You are signed in").waitFor();
  console.log("all held");
} catch (error) {
  console.error(error);
  process.exitCode = 1;
} finally {
  await browser.close();
}
