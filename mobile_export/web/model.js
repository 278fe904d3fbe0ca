// An exported model as its model.json tells of it ("The contract" in mobile_export/README.md), without a page or an engine:
// texts to inputs, outputs to answers, and the self-test on parity.json. The tests ask it for the ids of 50,000 texts.
const HAN = "\\u3400-\\u4dbf\\u4e00-\\u9fff\\uf900-\\ufaff", MARK = "!-\\/:-@\\[-`\\{-~\\p{P}", BLANK = "\\t\\n\\r\\p{Z}";
const ALL_HAN = `${HAN}\\u{20000}-\\u{2a6df}\\u{2a700}-\\u{2b81f}\\u{2b920}-\\u{2ceaf}\\u{2f800}-\\u{2fa1f}`;
const BLANKS = RegExp(`[${BLANK}]`, "gu"), CHINESE = RegExp(`[${ALL_HAN}]`, "gu");
const WORDS = RegExp(`[${MARK}]|[^${MARK}${BLANK}]+`, "gu");
const IN_WORD = "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\u200c\\u200d]";
const WORD_BEFORE = RegExp(`${IN_WORD}$`, "u"), WORD_AFTER = RegExp(`^${IN_WORD}`, "u");

export class Tokenizer {
  // about: `tokenizer` of model.json. vocabulary: pieces; an id is a position.
  constructor(about, vocabulary) {
    this.about = about;
    this.ids = new Map(vocabulary.map((piece, id) => [piece, id]));
    this.longest = Math.max(...vocabulary.map((piece) => piece.length));
    const whole = about.never_split, changed = (word) => ({ ...word, content: this.normalize(word.content) });
    this.whole = finder(whole.filter((word) => !word.normalized));
    this.wholeNormalized = finder(whole.filter((word) => word.normalized).map(changed));
  }

  normalize(text) {
    const { split_chinese, strip_accents, lowercase } = this.about;
    text = text.replace(BLANKS, " ").replace(/[\p{Cc}\p{Cf}\p{Co}\uFFFD]/gu, "");
    if (split_chinese) text = text.replace(CHINESE, " $& ");
    if (strip_accents) text = text.normalize("NFD").replace(/\p{Mn}/gu, "");
    return lowercase ? text.replace(/\p{CWL}/gu, (letter) => letter.toLowerCase()) : text;
  }

  // [CLS] a [SEP], or [CLS] a [SEP] b [SEP], of which the longer text is cut first.
  encode(text, second, maxLength) {
    const a = this.idsOf(text);
    if (second === undefined) return this.joined(this.cut(a, maxLength - 2), undefined, a.length > maxLength - 2);
    const b = this.idsOf(second), room = maxLength - 3;
    if (a.length + b.length <= room) return this.joined(a, b, false);
    const short = Math.min(a.length, b.length), long = Math.max(short, room - short), half = room >> 1;
    const [less, more] = short + long > room ? [half, room - half] : [short, long];
    const ofA = a.length > b.length ? more : less;
    return this.joined(this.cut(a, ofA), this.cut(b, less + more - ofA), true);
  }

  // Each word on its own; `wordStarts` has the place of its first piece, -1 if it has none.
  encodeWords(words, maxLength) {
    const parts = words.map((word) => this.idsOf(word)), all = parts.flat(), kept = this.cut(all, maxLength - 2);
    const from = this.about.truncation_side === "left" ? all.length - kept.length : 0;
    let end = 0;                                       // of a word's pieces, among all
    const starts = parts.map((part) => {
      const start = Math.max(end, from);
      end += part.length;
      return start < Math.min(end, from + kept.length) ? start - from + 1 : -1;
    });
    return { ...this.joined(kept, undefined, kept.length < all.length), wordStarts: starts };
  }

  cut(ids, size) {
    return this.about.truncation_side === "left" ? ids.slice(Math.max(0, ids.length - size)) : ids.slice(0, size);
  }

  joined(a, b, truncated) {
    const { cls, sep } = this.about.special, first = [cls.id, ...a, sep.id];
    const ids = b ? [...first, ...b, sep.id] : first;
    return { ids, typeIds: ids.map((_, place) => Number(place >= first.length)), wordStarts: [], truncated };
  }

  idsOf(text) {
    return this.whole(text.replace(/\p{Cs}/gu, "\uFFFD"), (raw) => this.wholeNormalized(this.normalize(raw),
      (part) => (part.match(WORDS) ?? []).flatMap((word) => this.pieces(word))));
  }

  // The longest pieces from the left; a word that cannot be cut so, or is too long, is unknown.
  pieces(word) {
    const found = [], { special, max_characters } = this.about;
    if ([...word].length > max_characters) return [special.unknown.id];
    for (let start = 0, end; start < word.length; start = end) {
      end = Math.min(word.length, start + this.longest);
      const known = () => this.ids.get((start ? "##" : "") + word.slice(start, end));
      while (end > start && known() === undefined) end--;
      if (end === start) return [special.unknown.id];
      found.push(known());
    }
    return found;
  }
}

// A function (text, rest => ids) -> ids that finds whole words: the leftmost, and of several there the longest.
function finder(words) {
  const sorted = words.filter((word) => word.content).sort((a, b) => b.content.length - a.content.length);
  const pattern = RegExp(sorted.map((word) => word.content.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&")).join("|"), "gu");
  return (text, idsOf) => {
    const ids = [];
    let start = 0;
    for (const { 0: content, index } of sorted.length ? text.matchAll(pattern) : []) {
      const word = sorted.find((one) => one.content === content), end = index + content.length;
      if (word.single_word && (WORD_BEFORE.test(text.slice(0, index)) || WORD_AFTER.test(text.slice(end)))) continue;
      ids.push(...idsOf(text.slice(start, index)), word.id);
      start = end;
    }
    return [...ids, ...idsOf(text.slice(start))];
  };
}

// The words of a text that is to be tagged: what stands between blanks, or the characters of Chinese (words.py).
const CHARACTERS = RegExp(`[${HAN}]|(?:(?![${HAN}])[\\p{L}\\p{N}])+|[^\\p{L}\\p{N}\\t-\\r\\x1c-\\x20\\x85\\p{Z}]`, "gu");
export function wordsOf(text, byCharacter, splitChinese = true) {
  const words = text.split(" "), holds = (number) => RegExp(`[${HAN}]{${number}}`, "u").test(text);
  const cut = splitChinese && holds(2) && (byCharacter || words.length === 1 || holds(5));   // no word has five
  return cut ? text.match(CHARACTERS) : words;
}

export class Model {
  // about: model.json. vocabulary, labels: the lines of vocab.txt and labels.txt. name: of the file.
  constructor(about, vocabulary, labels, name) {
    Object.assign(this, { about, labels, file: about.files.find((file) => file.path === name) });
    this.signatures = this.file.signatures.toSorted((a, b) => a.length - b.length);
    this.maxLength = this.signatures.at(-1).length;
    this.tokenizer = new Tokenizer(about.tokenizer, vocabulary);
  }

  words(text) {
    return wordsOf(text, this.about.words === "characters", this.about.tokenizer.split_chinese);
  }

  encode(text, second) {
    const { texts } = this.about;
    if (texts === "words") return this.tokenizer.encodeWords(this.words(text), this.maxLength);
    return this.tokenizer.encode(text, texts === "pair" ? second ?? "" : second || undefined, this.maxLength);
  }

  // {signature, arrays: {name of the tensor: numbers}}: the shortest signature that the text fits, padded with zeros.
  inputs({ ids, typeIds }) {
    const signature = this.signatures.find(({ length }) => length >= ids.length), names = this.about.inputs;
    const padded = (values) => Int32Array.from({ length: signature.length }, (_, k) => values[k] ?? 0);
    const arrays = { [names.ids]: ids, [names.mask]: ids.map(() => 1), [names.type_ids]: typeIds };
    return { signature, arrays: Object.fromEntries(Object.entries(arrays).map(([name, v]) => [name, padded(v)])) };
  }

  // {rows: [{name, value, label, holds}], best}: labels, the best first, or each word with its label; `best` in one string.
  answer(text, encoding, output) {
    const { per_token, answer, threshold } = this.about, { labels } = this, n = labels.length;
    if (per_token) {
      const rows = this.words(text).map((name, k) => {
        const start = encoding.wordStarts[k], place = start < 0 ? -1 : argmax(output.subarray(start * n, (start + 1) * n));
        return place < 0 ? { name, label: labels.includes("O") ? "O" : "–" }
          : { name, label: labels[place], value: output[start * n + place], holds: labels[place] !== "O" };
      });
      return { rows, best: rows.map((row) => row.label).join(" ") };
    }
    if (answer === "number") return { rows: [{ name: labels[0], label: output[0].toPrecision(4), holds: true }] };
    const best = argmax(output), holds = (k) => (answer === "sigmoid" ? output[k] >= threshold : k === best);
    const rows = labels.map((name, k) => ({ name, value: output[k], holds: holds(k) }));
    return { rows: rows.toSorted((a, b) => b.value - a.value), best: labels.filter((_, k) => holds(k)).join(", ") };
  }
}

const argmax = (values) => values.indexOf(Math.max(...values));

// How a file does on the texts of parity.json, which the exporting machine wrote. run: inputs -> outputs, async.
export async function selfTest(model, parity, run) {
  const row = parity?.files?.[model.file.path], all = parity?.texts, wanted = parity?.inputs?.[row?.max_length];
  if (row?.sha256 !== model.file.sha256) throw new Error("parity.json: not of this file");
  if (![all, wanted, row.outputs].every((each) => Array.isArray(each) && each.length && each.length === all.length)) {
    throw new Error("parity.json: damaged");           // without texts nothing would have been tested
  }
  const found = { texts: all.length, sameIds: 0, largest: 0 };
  let same = 0, rows = 0;
  for (const [number, given] of all.entries()) {
    const [text, second] = [given].flat(), { tokenizer } = model;
    const encoding = model.about.texts === "words" ? tokenizer.encodeWords(text.split(" "), row.max_length)
      : tokenizer.encode(text, second, row.max_length);
    found.sameIds += String(encoding.ids) === String(wanted[number]?.ids);
    const output = await run(model.inputs(encoding)), expected = [row.outputs[number]].flat();
    if (expected.flat().length !== model.labels.length * (model.about.per_token ? wanted[number]?.ids?.length : 1)) {
      throw new Error("parity.json: damaged");
    }
    for (const [place, values] of (model.about.per_token ? expected : [expected]).entries()) {
      const ours = output.subarray(place * values.length, (place + 1) * values.length);
      values.forEach((value, k) => {                   // what is no number is a failure, too
        const difference = Math.abs(value - ours[k]);
        found.largest = difference <= found.largest ? found.largest : Number.isNaN(difference) ? Infinity : difference;
      });
      same += argmax(values) === argmax(ours);
      rows += 1;
    }
  }
  const agreement = model.about.answer === "softmax" ? same / rows : undefined;
  const passed = found.sameIds === found.texts && found.largest <= row.tolerance;
  return { ...found, tolerance: row.tolerance, agreement, passed };
}
