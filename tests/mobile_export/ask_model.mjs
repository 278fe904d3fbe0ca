// Answers questions about the page's model.js as kotlin/Check.kt does about the Kotlin library: WEB QUESTIONS ANSWERS.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [web, questions, answers] = process.argv.slice(2);
const { Tokenizer, wordsOf } = await import(pathToFileURL(join(web, "model.js")));

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

const lines = JSON.parse(readFileSync(questions)).map((asked) => [...answer(asked), "\f"].join("\n"));
writeFileSync(answers, `${lines.join("\n")}\n`);
