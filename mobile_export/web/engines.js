// A file in an engine. LiteRT.js runs all that model.json tells of; MediaPipe classifiers alone, by what the file holds.
import { loadAndCompile, loadLiteRt, Tensor } from "./node_modules/@litertjs/core/dist/index.js";
import { FilesetResolver, TextClassifier } from "./node_modules/@mediapipe/tasks-text/text_bundle.mjs";
import { Model, selfTest } from "./model.js";

let started;                                           // LiteRT.js, once

class LiteRt {
  static async open(path) {
    const beside = (name) => fetch(new URL(name, new URL(path, document.baseURI)));
    const lines = async (name) => new TextDecoder("utf-8", { ignoreBOM: true })
      .decode(await (await beside(name)).arrayBuffer()).split("\n").slice(0, -1);
    const about = await (await beside("model.json")).json(), name = decodeURIComponent(path.split("/").at(-1));
    const engine = new LiteRt();
    engine.model = new Model(about, await lines("vocab.txt"), await lines("labels.txt"), name);
    engine.texts = about.texts;
    engine.parity = async () => (await beside("parity.json")).json().catch(() => {
      throw new Error("parity.json: damaged");
    });
    await (started ??= loadLiteRt("node_modules/@litertjs/core/wasm/"));
    engine.compiled = await loadAndCompile(path, { accelerator: "wasm" });
    return engine;
  }

  async run({ signature, arrays }) {
    const tensor = ([name, values]) => [name, new Tensor(values, [1, values.length])];
    const given = Object.fromEntries(Object.entries(arrays).map(tensor));
    const found = await this.compiled.run(signature.name, given);
    const output = (await found[this.model.about.output].data()).slice();
    for (const one of [...Object.values(given), ...Object.values(found)]) one.delete();
    return output;
  }

  async answer(text, second) {
    const encoding = this.model.encode(text, second), inputs = this.model.inputs(encoding);
    return { ...this.model.answer(text, encoding, await this.run(inputs)), length: inputs.signature.length };
  }

  async test() {
    return selfTest(this.model, await this.parity(), (inputs) => this.run(inputs));
  }

  close() {
    this.compiled.delete();
  }
}

// As `mediapipe_compatible` of metadata.py: what the models' own tokenizer does and MediaPipe's does not. Where this
// browser's Unicode is newer than Python's, letters and marks that came with it are told apart otherwise.
const normalized = (text) => text.replace(/[\t\n\r\p{Z}]/gu, " ").replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Co}\uFFFD]/gu, "")
  .normalize("NFD").replace(/\p{Mn}/gu, "").replace(/[\p{Uppercase}\p{Lt}]/gu, (letter) => letter.toLowerCase());

class MediaPipe {
  texts = "one";

  static async open(path) {
    const files = await FilesetResolver.forTextTasks("node_modules/@mediapipe/tasks-text/wasm");
    const engine = new MediaPipe();
    engine.classifier = await TextClassifier.createFromOptions(files, { baseOptions: { modelAssetPath: path } });
    return engine;
  }

  async answer(text) {
    const found = this.classifier.classify(normalized(text)).classifications[0].categories;
    const rows = found.map(({ categoryName, score }) => ({ name: categoryName, value: score })).sort((a, b) => b.value - a.value);
    rows[0].holds = true;
    return { rows, best: rows[0].name };
  }

  close() {
    this.classifier.close();
  }
}

export const ENGINES = { LiteRT: LiteRt, MediaPipe };
