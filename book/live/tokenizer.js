// GPT-2's tokenizer in plain JavaScript: byte-level byte-pair encoding (BPE), from vocab.bpe alone.
//
//   const tokenizer = new Tokenizer(textOfVocabBpe);
//   tokenizer.encode("Do you have time");      // [5211, 345, 423, 640]
//   tokenizer.decode([5211, 345, 423, 640]);   // "Do you have time"
//
// A text is cut into pieces (words, numbers, punctuation, spaces), each piece into its UTF-8 bytes, and
// then the pair of neighbours that stands highest in the list of merges becomes one token, again and
// again. Sources: Sennrich et al. (2016) for BPE, Radford et al. (2019) for its use on bytes.

const END_OF_TEXT = "<|endoftext|>";

// How GPT-2 cuts a text. Python's \s is Unicode's White_Space; JavaScript's \s is not (U+0085, U+FEFF).
const PIECES = new RegExp(
  "'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+| ?[^\\p{White_Space}\\p{L}\\p{N}]+" +
    "|\\p{White_Space}+(?!\\P{White_Space})|\\p{White_Space}+", "gu");

// vocab.bpe writes each byte as a character that can be seen: "Ġ" is the space. Printable bytes stand for
// themselves, the other 68 have the characters from 256 on. In this order, the bytes are tokens 0 to 255.
function byteCharacters() {
  const printable = (byte) => (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
  const bytes = [...Array(256).keys()];
  const others = bytes.filter((byte) => !printable(byte));
  return [...bytes.filter(printable).map((byte) => [byte, String.fromCharCode(byte)]),
    ...others.map((byte, i) => [byte, String.fromCharCode(256 + i)])];
}

class Tokenizer {
  constructor(vocabBpe) {
    this.characters = []; // ID -> characters of the token
    this.byteIds = []; // byte -> ID
    this.byteOf = new Map(); // character -> byte
    for (const [byte, character] of byteCharacters()) {
      this.byteIds[byte] = this.characters.length;
      this.byteOf.set(character, byte);
      this.characters.push(character);
    }
    this.merges = new Map(); // "left right", a line of the file -> ID of the merged token: the lower, the earlier
    for (const line of vocabBpe.trimEnd().split("\n").slice(1)) { // the first line is a version
      this.merges.set(line, this.characters.length);
      this.characters.push(line.replace(" ", ""));
    }
    this.endOfText = this.characters.length; // 50256, the only special token
    this.characters.push(END_OF_TEXT);
  }

  // Text -> array of token IDs. "<|endoftext|>" in a text is ordinary text, unless special is true.
  encode(text, special = false) {
    if (special) {
      const parts = text.split(END_OF_TEXT).map((part) => this.encode(part));
      return parts.reduce((before, after) => [...before, this.endOfText, ...after]);
    }
    return (text.match(PIECES) ?? []).flatMap((piece) => this.merge(new TextEncoder().encode(piece)));
  }

  // Bytes of a piece -> token IDs. Pairs wait in a heap, so that n bytes take n log n steps.
  merge(bytes) {
    const ids = Array.from(bytes, (byte) => this.byteIds[byte]);
    const next = ids.map((_, i) => i + 1), previous = ids.map((_, i) => i - 1); // neighbours not yet merged
    const heap = new Heap();
    const pair = (i) => (i < 0 || next[i] >= ids.length ? undefined // before the start, or the end
      : this.merges.get(`${this.characters[ids[i]]} ${this.characters[ids[next[i]]]}`));
    const consider = (i) => { // the pair that starts at i: lowest ID first, then leftmost
      const merged = pair(i);
      if (merged !== undefined) heap.push(merged * 2 ** 32 + i);
    };
    ids.forEach((_, i) => consider(i));
    while (heap.items.length) {
      const key = heap.pop(), i = key % 2 ** 32, merged = Math.floor(key / 2 ** 32), j = next[i];
      // A pair that has changed since it was put into the heap is left alone.
      if (ids[i] < 0 || pair(i) !== merged) continue;
      ids[i] = merged;
      ids[j] = -1; // gone
      next[i] = next[j];
      if (next[j] < ids.length) previous[next[j]] = i;
      consider(previous[i]);
      consider(i);
    }
    return ids.filter((id) => id >= 0);
  }

  // Token IDs -> text; bytes that are no whole character become "�", as in Python.
  decode(ids) {
    const bytes = Uint8Array.from(ids.map((id) => this.characters[id]).join(""), (c) => this.byteOf.get(c));
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
  }
}

// A binary heap of numbers: pop gives the smallest.
class Heap {
  items = [];

  push(key) {
    const items = this.items;
    let i = items.push(key) - 1;
    for (let parent; i > 0 && items[(parent = (i - 1) >> 1)] > key; i = parent) items[i] = items[parent];
    items[i] = key;
  }

  pop() {
    const items = this.items, smallest = items[0], key = items.pop();
    if (!items.length) return smallest;
    let i = 0;
    for (let child; (child = 2 * i + 1) < items.length; i = child) {
      if (items[child + 1] < items[child]) child += 1;
      if (items[child] >= key) break;
      items[i] = items[child];
    }
    items[i] = key;
    return smallest;
  }
}

if (typeof module !== "undefined") module.exports = { Tokenizer };
