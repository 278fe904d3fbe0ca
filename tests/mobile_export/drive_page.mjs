// Drives the web page in headless Chromium for test_web.py: types texts, and prints as JSON what the page shows for
// each and what it asked the network for. Its one argument, JSON: address, web (folder of node_modules), chromium
// (path), texts (a pair: both in a list), and optionally change (a file that the first panel is to show instead while its
// own, which comes late, is on the way), choose (a file for each panel) and test (press both buttons of the self-test).
import { createRequire } from "node:module";
import { join } from "node:path";

const asked = JSON.parse(process.argv[2]);
const { chromium } = createRequire(join(asked.web, "package.json"))("playwright-core");
const browser = await chromium.launch({ executablePath: asked.chromium, args: ["--no-sandbox"] });
const page = await browser.newPage({ locale: "en" });
const errors = [], requests = [], blocked = [];
page.on("pageerror", (error) => errors.push(String(error)));
page.on("request", (request) => requests.push(request.url()));
await page.exposeFunction("noteBlocked", (address) => blocked.push(address));
await page.addInitScript(() => {                       // what the page would do every minute happens twice a second
  const setSlowly = window.setInterval;
  window.setInterval = (task, delay, ...rest) => setSlowly(task, Math.min(delay, 500), ...rest);
  document.addEventListener("securitypolicyviolation", (event) => window.noteBlocked(event.blockedURI));
});

if (asked.change) {
  await page.route("**/float32.tflite", async (route) => {
    await new Promise((done) => setTimeout(done, 3000));
    await route.continue();
  });
}
await page.goto(asked.address);
if (asked.change) await page.locator("select").first().selectOption(asked.change);
await page.waitForFunction(() => [...document.querySelectorAll(".state")].every(
  (state) => /^Waiting|^This/.test(state.textContent)), null, { timeout: 120_000 });
for (const [place, name] of (asked.choose ?? []).entries()) {
  await page.locator("select").nth(place).selectOption(name);
  await page.waitForFunction((place) => /^Waiting/.test(document.querySelectorAll(".state")[place].textContent), place);
}
const tested = [];
for (const button of asked.test ? await page.locator(".model button").all() : []) await button.click();
if (asked.test) {
  await page.waitForFunction(() => [...document.querySelectorAll(".tested")].every((p) => /^Self-test/.test(p.textContent)));
  tested.push(...await page.locator(".tested").allTextContents());
}
const shown = [];
for (const given of asked.texts) {
  const [text, second] = [given].flat();
  if (second) await page.fill("#second", second);
  await page.fill("#text", text);
  await page.waitForFunction((text) => [...document.querySelectorAll(".model:not(.failed)")].every(
    (model) => model.dataset.text === text), text);
  shown.push({ verdict: await page.textContent("#verdict"), models: await page.$$eval(".model", (models) => models.map(
    (model) => ({
      name: model.querySelector("select").value, size: model.querySelector(".size").textContent,
      length: model.dataset.length, median: model.querySelector(".median").textContent, state: model.querySelector(".state").textContent,
      scores: [...model.querySelectorAll("li")].map((row) => [row.querySelector("span").textContent,
        row.querySelector("meter")?.value, row.querySelector("b").textContent]),
    }))) });
}
const markup = await page.$$eval("main *", (all) => all.filter((element) => element.id === "evil").length);
await page.setViewportSize({ width: 390, height: 844 });
const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
await page.click("#language");
const chinese = await page.textContent("h1");
tested.push(...await page.locator(".tested").allTextContents());
await page.waitForTimeout(1500);
await browser.close();
console.log(JSON.stringify({ shown, errors, requests, blocked, markup, overflow, chinese, tested }));
