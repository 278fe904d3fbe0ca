// Answers questions about the page's model.js as kotlin/Check.kt does about the Kotlin library: WEB QUESTIONS ANSWERS.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [web, questions, answers] = process.argv.slice(2);
const { Model, selfTest, Tokenizer, wordsOf } = await import(pathToFileURL(join(web, "model.js")));

function answer(asked) {
  if (asked.do === "words") {
    return asked.texts.map((text) => wordsOf(text, asked.characters).join("\u0001").replace(/\p{Cs}/gu, "?"));
  }
  const tokenizer = new Tokenizer(asked.tokenizer, asked.vocabulary), start = performance.now();
  const encoded = asked.texts.map((text) => (asked.words ? tokenizer.encodeWords(text, asked.length)
    : tokenizer.encode(...(Array.isArray(text) ? text : [text, undefined]), asked.length)));
  const micros = 1e3 * (performance.now() - start) / encoded.length;
  return [...encoded.map((e) => `${[e.ids, e.typeIds, e.wordStarts].map((x) => x.join(" ")).join("|")}|${e.truncated}`),
    micros];
}

// The self-test on the outputs that parity.json has, then on others.
async function tested({ folder, file, parity }) {
  const read = (name) => readFileSync(join(folder, name), "utf8"), linesOf = (name) => read(name).split("\n").slice(0, -1);
  const model = new Model(JSON.parse(read("model.json")), linesOf("vocab.txt"), linesOf("labels.txt"), file), found = [];
  const told = JSON.parse(read(parity));
  for (const shift of [0, 0.1]) {
    const outputs = (told.files?.[file]?.outputs ?? []).map((values) => Float32Array.from([values].flat(2), (x) => x + shift));
    const { sameIds, texts, largest, passed } = await selfTest(model, told, async () => outputs.shift());
    found.push([sameIds, texts, largest, passed].join(" "));
  }
  return found;
}

const lines = [];
for (const asked of JSON.parse(readFileSync(questions))) {
  const found = asked.do === "model" ? await tested(asked).catch((error) => [error.message]) : answer(asked);
  lines.push([...found, "\f"].join("\n"));
}
writeFileSync(answers, `${lines.join("\n")}\n`);
