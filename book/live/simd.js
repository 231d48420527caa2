// The one part of gpt2.js that has to be fast: a linear layer, in JavaScript and in WebAssembly.

const TILE = 4; // tokens at once: a weight that is read serves four of them
const PANEL = 8; // outputs at once: two vectors of four floats

// y = x Wᵀ + b with W packed in panels; all arrays are given by where they begin in memory, in bytes.
function linearInJavaScript(memory, x, weight, bias, y, n, nIn, nOut) {
  for (let o = 0; o < nOut; o += PANEL) {
    for (let t = 0; t < n; t++) {
      const sums = memory.slice(bias / 4 + o, bias / 4 + o + PANEL);
      for (let i = 0; i < nIn; i++) {
        const value = memory[x / 4 + t * nIn + i], w = weight / 4 + o * nIn + i * PANEL;
        for (let p = 0; p < PANEL; p++) sums[p] += value * memory[w + p];
      }
      memory.set(sums, y / 4 + t * nOut + o);
    }
  }
}

// The same in WebAssembly, whose SIMD instructions work on four floats at once. A module is a row of
// bytes; the functions below name them (webassembly.github.io/spec), and KERNEL reads like the code above.
// It always computes a whole tile of four tokens: memory has room for the rows that nobody reads.
const KERNEL = (() => {
  // Variables by their numbers: integers first, then vectors, a row of weights and 4 x 2 sums.
  const [x, weight, bias, y, n, nIn, nOut, o, t, w, end, row, out, x0, x1, x2, x3] = Array(17).keys();
  const [w0, w1, ...sums] = Array(10).fill(17).map((first, i) => first + i), rows = [x0, x1, x2, x3];

  // A number in bytes (LEB128); read and set a variable; a constant, and arithmetic with integers.
  const leb = (value) => (value < 128 ? [value] : [(value & 127) | 128, ...leb(value >> 7)]);
  const get = (local) => [0x20, local], set = (local, ...value) => [...value, 0x21, local];
  const int = (value) => [0x41, value], four = int(4), times = (a, b) => [a, b, 0x6c];
  const add = (...parts) => parts.reduce((a, b) => [a, b, 0x6a]);
  // Do the body while a < b.
  const repeat = (body, a, b) => [0x03, 0x40, body, get(a), get(b), 0x49, 0x0d, 0, 0x0b];
  // Four floats from memory and back, one float four times, and arithmetic with four floats.
  const load = (at, offset = 0) => [at, 0xfd, 0x00, 2, offset], splat = (at) => [at, 0xfd, 0x09, 2, 0];
  const store = (at, value, offset) => [at, value, 0xfd, 0x0b, 2, offset];
  const vadd = (a, b) => [a, b, 0xfd, 0xe4, 1], vtimes = (a, b) => [a, b, 0xfd, 0xe6, 1];

  const multiply = [
    set(w0, load(get(w))), set(w1, load(get(w), 16)),
    rows.map((xt, r) => [w0, w1].map((wp, p) =>
      set(sums[2 * r + p], vadd(get(sums[2 * r + p]), vtimes(splat(get(xt)), get(wp)))))),
    rows.map((xt) => set(xt, add(get(xt), four))), set(w, add(get(w), int(32))),
  ];
  const tile = [
    set(x0, add(get(x), times(get(t), get(row)))),
    [x1, x2, x3].map((xt) => set(xt, add(get(xt - 1), get(row)))),
    sums.map((sum, i) => set(sum, load(add(get(bias), times(get(o), four)), 16 * (i % 2)))),
    set(w, add(get(weight), times(get(o), get(row)))),
    set(end, add(get(w), times(int(PANEL), get(row)))),
    repeat(multiply, w, end),
    set(out, add(get(y), times(add(times(get(t), get(nOut)), get(o)), four))),
    rows.map((_, r) => [store(get(out), get(sums[2 * r]), 0), store(get(out), get(sums[2 * r + 1]), 16),
      set(out, add(get(out), times(get(nOut), four)))]),
    set(t, add(get(t), int(TILE))),
  ];
  const panel = [set(t, int(0)), repeat(tile, t, n), set(o, add(get(o), int(PANEL)))];
  const code = [set(row, times(get(nIn), four)), set(o, int(0)), repeat(panel, o, nOut), 0x0b].flat(Infinity);

  const section = (id, ...content) => [id, ...leb(content.flat(Infinity).length), content].flat(Infinity);
  const name = (text) => [text.length, ...new TextEncoder().encode(text)];
  const body = [2, 10, 0x7f, 10, 0x7b, ...code]; // its own variables: ten i32, ten v128
  return Uint8Array.from([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, // "\0asm", version 1
    ...section(1, 1, 0x60, 7, Array(7).fill(0x7f), 0), // one type: a function of seven i32, without a result
    ...section(2, 1, name("js"), name("memory"), 2, 0, 1), // import the memory
    ...section(3, 1, 0), ...section(7, 1, name("linear"), 0, 0), // one function of that type, exported
    ...section(10, 1, leb(body.length), body)]);
})();

if (typeof module !== "undefined") module.exports = { KERNEL, TILE, PANEL, linearInJavaScript };
