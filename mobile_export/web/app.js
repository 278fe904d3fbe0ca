// Two exported models side by side: classifies while one types. Text of users and of files is only ever set as text.
import { FilesetResolver, TextClassifier } from "./node_modules/@mediapipe/tasks-text/text_bundle.mjs";

const WORDS = {
  en: {
    other: "中文", title: "Two models side by side", text: "Type a sentence", model: "Model", size: "File", last: "Time",
    median: "Median", loading: "Loading …", empty: "Waiting for text.", failed: "This file does not load: ",
    same: "Both models say the same.", different: "The models disagree.",
    note: "Everything runs in this browser; no text leaves it. Times are those of this device, from text to scores. A text is read as far as the file's length goes.",
    phone: `On an Android phone at the USB cable: run “adb reverse tcp:${location.port} tcp:${location.port}” here, then open ${location.origin}/ there.`,
  },
  zh: {
    other: "English", title: "两个模型，左右对比", text: "输入一句话", model: "模型", size: "文件", last: "用时",
    median: "中位数", loading: "正在加载……", empty: "请先输入文字。", failed: "无法加载此文件：",
    same: "两个模型的判断一致。", different: "两个模型的判断不同。",
    note: "一切都在本浏览器内运行，文字不会外传。用时在本设备上测得，从文字到分数。超出文件所定长度的文字不会读到。",
    phone: `在接了数据线的 Android 手机上看：先在本机运行“adb reverse tcp:${location.port} tcp:${location.port}”，再到手机上打开 ${location.origin}/ 。`,
  },
};
const NUM_SCORES = 5, NUM_TIMES = 50;
const byId = (id) => document.getElementById(id);
let words = WORDS[navigator.language.startsWith("zh") ? "zh" : "en"];
let loading = Promise.resolve();                       // MediaPipe loads one model at a time

// As `mediapipe_compatible` of metadata.py: what the models' own tokenizer does and MediaPipe's does not. Where this
// browser's Unicode is newer than Python's, letters and marks that came with it are told apart otherwise.
const normalized = (text) => text.replace(/[\t\n\r\p{Z}]/gu, " ").replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Co}\uFFFD]/gu, "")
  .normalize("NFD").replace(/\p{Mn}/gu, "").replace(/[\p{Uppercase}\p{Lt}]/gu, (letter) => letter.toLowerCase());

class Panel {
  constructor(section, models, chosen) {
    this.section = section;
    this.find = (selector) => section.querySelector(selector);
    const select = this.find("select");
    select.append(...models.map((model) => new Option(model.name)));
    select.selectedIndex = chosen;
    select.onchange = () => this.load(models[select.selectedIndex]);
    this.load(models[chosen]);
  }

  load(model) {
    this.state = { word: "loading" };
    this.classifier?.close();
    this.classifier = this.best = undefined;
    this.times = [];
    this.model = model;
    this.show([]);
    loading = loading.then(async () => {
      if (this.model !== model) return;                // another one has been chosen meanwhile
      let made;
      try {
        const files = await FilesetResolver.forTextTasks("node_modules/@mediapipe/tasks-text/wasm");
        const baseOptions = { modelAssetPath: model.path };
        made = await TextClassifier.createFromOptions(files, { baseOptions });
        made.classify("warm up");
      } catch (error) {
        made?.close();
        made = undefined;
        if (this.model === model) this.state = { word: "failed", more: error.message };
      }
      if (this.model !== model) {                      // or while this one was loading
        made?.close();
        return;
      }
      this.classifier = made;
      if (made) update();
      else this.show([]);
    });
  }

  classify(text) {
    if (!this.classifier) return;
    const empty = text.trim() === "";
    this.state = empty ? { word: "empty" } : undefined;
    if (empty) {
      this.best = undefined;
      this.show([]);
      return;
    }
    const start = performance.now();
    const scores = this.classifier.classify(normalized(text)).classifications[0].categories;
    this.times = [...this.times, performance.now() - start].slice(-NUM_TIMES);
    scores.sort((a, b) => b.score - a.score);
    this.best = scores[0].categoryName;
    this.show(scores.slice(0, NUM_SCORES));
    this.section.dataset.text = text;
  }

  show(scores) {
    const milliseconds = (value) => (value === undefined ? "–" : `${value.toFixed(1)} ms`);
    const sorted = this.times.toSorted((a, b) => a - b);
    this.find(".size").textContent = `${(this.model.bytes / 1e6).toFixed(1)} MB`;
    this.find(".last").textContent = milliseconds(this.times.at(-1));
    this.find(".median").textContent = milliseconds(sorted[sorted.length >> 1]);
    this.say();
    verdict();
    this.find("ol").replaceChildren(...scores.map(({ categoryName, score }) => {
      const [row, name, percent, bar] = ["li", "span", "b", "meter"].map((tag) => document.createElement(tag));
      name.textContent = categoryName;
      bar.value = score;
      percent.textContent = `${(100 * score).toFixed(1)} %`;
      row.append(name, percent, bar);
      return row;
    }));
  }

  say() {
    this.find(".state").textContent = this.state ? words[this.state.word] + (this.state.more ?? "") : "";
    this.section.classList.toggle("failed", this.state?.word === "failed");
  }
}

function update() {
  for (const panel of panels) panel.classify(byId("text").value);
}

function verdict() {
  const [left, right] = panels.map((panel) => panel.best);
  byId("verdict").textContent = left && right ? words[left === right ? "same" : "different"] : "";
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
byId("language").addEventListener("click", () => {
  words = words === WORDS.en ? WORDS.zh : WORDS.en;
  translate();
});
