// Two exported models side by side: they answer while one types. Text of users and of files is only ever set as text.
import { ENGINES } from "./engines.js";

const percent = (share) => `${(100 * share).toFixed(1)} %`;
const tested = ({ texts, sameIds, largest, tolerance, agreement }, words) => words.tested.replace("IDS", `${sameIds} / ${texts}`)
  .replace("LARGEST", largest.toExponential(1)).replace("BOUND", tolerance.toExponential(1))
  + (agreement === undefined ? "" : words.agreed + percent(agreement));

const WORDS = {
  en: {
    other: "中文", title: "Two models side by side", text: "Type a sentence", model: "Model", size: "File", last: "Time",
    median: "Median", loading: "Loading …", empty: "Waiting for text.", failed: "This file does not load: ",
    same: "Both models say the same.", different: "The models disagree.", wrong: "This did not work: ",
    second: "Second text", self_test: "Self-test",
    running: "Testing …", passed: "Self-test passed. ", missed: "Self-test FAILED: do not use this file here. ",
    tested: "Texts with the same ids: IDS; largest difference of an output: LARGEST (allowed: BOUND)", agreed: "; same answer: ",
    note: "Everything runs in this browser; no text leaves it. Times are those of this device, from text to scores. A text is read as far as the file's length goes.",
    phone: `On an Android phone at the USB cable: run “adb reverse tcp:${location.port} tcp:${location.port}” here, then open ${location.origin}/ there.`,
  },
  zh: {
    other: "English", title: "两个模型，左右对比", text: "输入一句话", model: "模型", size: "文件", last: "用时",
    median: "中位数", loading: "正在加载……", empty: "请先输入文字。", wrong: "出错了：", failed: "无法加载此文件：",
    same: "两个模型的判断一致。", different: "两个模型的判断不同。",
    second: "第二句话", self_test: "自检",
    running: "正在自检……", passed: "自检通过。", missed: "自检未通过：请勿在此使用该文件。",
    tested: "id 相同的文本：IDS；输出的最大差异：LARGEST（允许 BOUND）", agreed: "；答案一致：",
    note: "一切都在本浏览器内运行，文字不会外传。用时在本设备上测得，从文字到分数。超出文件所定长度的文字不会读到。",
    phone: `在接了数据线的 Android 手机上看：先在本机运行“adb reverse tcp:${location.port} tcp:${location.port}”，再到手机上打开 ${location.origin}/ 。`,
  },
};
const NUM_ROWS = 5, NUM_TIMES = 50;
const byId = (id) => document.getElementById(id);
let words = WORDS[navigator.language.startsWith("zh") ? "zh" : "en"];
let queue = Promise.resolve();                         // one model at a time is loaded, or at work
const later = (task) => (queue = queue.then(task, task));

class Panel {
  constructor(section, models, chosen) {
    this.section = section;
    this.find = (selector) => section.querySelector(selector);
    const select = this.find("select");
    select.append(...models.map((model) => new Option(model.name)));
    select.selectedIndex = chosen;
    select.onchange = () => this.load(models[select.selectedIndex]);
    this.find("button").onclick = () => this.test();
    this.load(models[chosen]);
  }

  load(model) {
    const before = this.engine;
    this.engine = this.best = this.asked = this.result = undefined;
    this.times = [];
    this.model = model;
    this.section.dataset.text = "";
    this.find("button").hidden = true;
    this.show([], "loading");
    later(async () => {
      before?.close();
      if (this.model !== model) return;                // another one has been chosen meanwhile
      let made;
      try {
        made = await ENGINES[model.engine].open(model.path);
        await made.answer("warm up");
      } catch (error) {
        made?.close();
        made = undefined;
        if (this.model === model) this.show([], "failed", error.message);
      }
      if (this.model !== model) return made?.close();  // or while this one was loading
      this.engine = made;
      this.find("button").hidden = !made || !model.parity;
      byId("pair").hidden = panels.every(({ engine }) => !["pair", "either"].includes(engine?.texts));
      update();
    });
  }

  // Of texts that are typed while a model is at work only the last is read.
  answer() {
    later(async () => {
      const asked = byId("text").value, second = byId("pair").hidden ? undefined : byId("second").value, { engine } = this;
      const both = JSON.stringify([asked, second]);
      if (!engine || this.asked === both) return;
      this.asked = both;
      this.best = undefined;
      if (asked.trim() === "") return this.show([], "empty");
      try {
        const start = performance.now(), { rows, best, length } = await engine.answer(asked, second);
        this.times = [...this.times, performance.now() - start].slice(-NUM_TIMES);
        this.best = best;
        this.section.dataset.length = length;          // of the signature that ran
        if (this.engine === engine) this.show(rows);
      } catch (error) {
        if (this.engine === engine) this.show([], "wrong", error.message);
      }
      if (this.engine === engine) this.section.dataset.text = asked;
    });
  }

  test() {
    this.result = { word: "running" };
    this.say();
    later(async () => {
      const { engine } = this;
      let result;
      try {
        const found = await engine.test();
        result = { word: found.passed ? "passed" : "missed", found };
      } catch (error) {
        result = { word: "missed", more: error.message };
      }
      if (this.engine === engine) this.result = result;
      this.say();
    });
  }

  show(rows, word, more = "") {
    const milliseconds = (value) => (value === undefined ? "–" : `${value.toFixed(1)} ms`);
    const sorted = this.times.toSorted((a, b) => a - b);
    this.state = word && { word, more };
    this.find(".size").textContent = `${(this.model.bytes / 1e6).toFixed(1)} MB`;
    this.find(".last").textContent = milliseconds(this.times.at(-1));
    this.find(".median").textContent = milliseconds(sorted[sorted.length >> 1]);
    this.say();
    verdict();
    const shown = this.engine?.texts === "words" ? rows : rows.filter((row, place) => place < NUM_ROWS || row.holds);
    this.find("ol").replaceChildren(...shown.map(({ name, value, label, holds }) => {
      const [row, first, told, bar] = ["li", "span", "b", "meter"].map((tag) => document.createElement(tag));
      first.textContent = name;
      told.textContent = [label, value === undefined ? undefined : percent(value)].filter(Boolean).join(" · ");
      bar.value = value ?? 0;
      row.classList.toggle("holds", Boolean(holds));
      row.append(first, told, ...(value === undefined ? [] : [bar]));
      return row;
    }));
  }

  say() {
    this.find(".state").textContent = this.state ? words[this.state.word] + this.state.more : "";
    this.section.classList.toggle("failed", ["failed", "wrong"].includes(this.state?.word));
    const { word, found, more = "" } = this.result ?? {};
    this.find(".tested").textContent = word ? words[word] + more + (found ? tested(found, words) : "") : "";
    this.find(".tested").classList.toggle("missed", word === "missed");
  }
}

function update() {
  for (const panel of panels) panel.answer();
}

function verdict() {
  const [left, right] = panels.map((panel) => panel.best), [one, other] = panels.map((panel) => panel.engine?.texts);
  const both = left !== undefined && right !== undefined && one === other;
  byId("verdict").textContent = both ? words[left === right ? "same" : "different"] : "";
  byId("verdict").classList.toggle("different", left !== right);
}

function translate() {
  document.documentElement.lang = words === WORDS.zh ? "zh" : "en";
  document.title = words.title;
  byId("language").textContent = words.other;
  for (const element of document.querySelectorAll("[data-word]")) element.textContent = words[element.dataset.word];
  for (const panel of panels) panel.find("select").ariaLabel = words.model;
  for (const panel of panels) panel.say();
  verdict();
}

const models = await (await fetch("models.json")).json();
const sizes = models.map((model) => model.bytes);
const first = document.querySelector(".model"), second = first.cloneNode(true);
first.after(second);
const panels = [];
panels.push(new Panel(first, models, sizes.indexOf(Math.max(...sizes))),
  new Panel(second, models, sizes.indexOf(Math.min(...sizes))));
translate();
byId("text").addEventListener("input", update);
byId("second").addEventListener("input", update);
byId("language").addEventListener("click", () => {
  words = words === WORDS.en ? WORDS.zh : WORDS.en;
  translate();
});
