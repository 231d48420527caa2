// GPT-2 in plain JavaScript: the model of previous_chapters.py, with the same names, in a browser.
//
// One set of weights holds a language model and a classifier. They share the embeddings and all blocks
// before the first one that fine-tuning changed; from there on each has its own.
//
// Shapes in comments: T tokens, C the embedding width (emb_dim), H attention heads, D = C / H the width
// of one head, V the vocabulary size. A matrix is one flat array, row after row.

// KERNEL, TILE and PANEL come from simd.js: in a browser by being there, in Node like this.
if (typeof require !== "undefined") Object.assign(globalThis, require("./simd.js"));

class GPT2 {
  // header: { config, settings, tensors: { name: { shape, dtype, offset, scales } } }; buffer: the values.
  constructor(header, buffer, { simd = true } = {}) {
    Object.assign(this, header.config); // vocab_size, context_length, emb_dim, n_heads, n_layers
    this.settings = header.settings; // of the classifier: max_length, threshold, class_names, ...
    Object.assign(this, { header, buffer });

    // One memory for the layers and what flows through them: the kernel below reads and writes it.
    const C = this.emb_dim, rows = this.context_length + TILE;
    const floats = rows * C * (8 + 4 * this.n_layers) + this.n_layers * 26 * C * C + 64 * C * this.n_layers;
    this.memory = new WebAssembly.Memory({ initial: Math.ceil((floats * 4) / 65536) + 1 });
    this.floats = new Float32Array(this.memory.buffer);
    this.used = 0;
    this.kernel = simd && WebAssembly.validate(KERNEL)
      ? new WebAssembly.Instance(new WebAssembly.Module(KERNEL), { js: this }).exports.linear
      : (...args) => linearInJavaScript(this.floats, ...args);

    this.x = this.room(rows * C); // the residual stream, (T, C)
    for (const name of ["normed", "queries", "context"]) this[name] = this.room(rows * C);
    this.wide = this.room(rows * C * 4); // inside feed-forward, (T, 4C)
    this.tokEmb = this.tensor("tok_emb.weight"); // (V, C), not unpacked: one row is needed for a token
    this.posEmb = this.tensor("pos_emb.weight"); // (context length, C)

    const numbers = [...Array(this.n_layers).keys()];
    const changed = numbers.filter((i) => `classifier.trf_blocks.${i}.norm1.scale` in header.tensors);
    this.shared = Math.min(...changed, this.n_layers); // blocks before this one are the same in both
    const blocks = numbers.map((i) => this.block(`trf_blocks.${i}`));
    const own = blocks.map((block, i) => (changed.includes(i) ? this.block(`classifier.trf_blocks.${i}`) : block));
    const ends = (norm, head) => ({ norm: this.norm(norm), head: this.head(head) });
    this.pretrained = { blocks, ...ends("final_norm", "untrained.out_head") };
    this.finetuned = { blocks: own, ...ends("classifier.final_norm", "classifier.out_head") };
  }

  // ---- Parameters ----

  room(length) { // a part of the memory, as an array of floats
    this.used += length;
    return this.floats.subarray(this.used - length, this.used);
  }

  // A parameter: floats, or where it was stored in 8 bits, whole numbers with one scale a row.
  tensor(name) {
    const { shape, dtype, offset, scales } = this.header.tensors[name];
    const Kind = { int8: Int8Array, float16: Uint16Array, float32: Float32Array }[dtype];
    const stored = new Kind(this.buffer, offset, shape.reduce((a, b) => a * b));
    const values = dtype === "float16" ? halvesToFloats(stored) : stored;
    return { shape, values, scales: scales === undefined ? null : new Float32Array(this.buffer, scales, shape[0]) };
  }

  // Value i of a parameter as a number.
  value({ values, scales, shape }, i) {
    return scales ? values[i] * scales[Math.floor(i / shape[1])] : values[i];
  }

  norm(name) {
    return { scale: this.tensor(`${name}.scale`).values, shift: this.tensor(`${name}.shift`).values };
  }

  head(name) { // few rows: it stays as PyTorch has it, (number of classes, C)
    return { weight: this.tensor(`${name}.weight`).values, bias: this.tensor(`${name}.bias`).values };
  }

  // A linear layer, PyTorch's (out, in) matrix packed for the kernel: panels of 8 outputs, in each of them
  // the 8 weights of input 0, then the 8 of input 1, and so on. The inner loop then reads straight on.
  layer(name) {
    const { shape: [nOut, nIn], values, scales } = this.tensor(`${name}.weight`);
    const weight = this.room(nOut * nIn), bias = this.room(nOut);
    for (let o = 0; o < nOut; o++) {
      const start = (o - (o % PANEL)) * nIn + (o % PANEL), scale = scales ? scales[o] : 1;
      for (let i = 0; i < nIn; i++) weight[start + i * PANEL] = values[o * nIn + i] * scale;
    }
    bias.set(this.tensor(`${name}.bias`).values);
    return { weight, bias, nIn, nOut };
  }

  block(name) {
    const room = (this.context_length + TILE) * this.emb_dim;
    return {
      norm1: this.norm(`${name}.norm1`), norm2: this.norm(`${name}.norm2`),
      query: this.layer(`${name}.att.W_query`), key: this.layer(`${name}.att.W_key`),
      value: this.layer(`${name}.att.W_value`), out: this.layer(`${name}.att.out_proj`),
      up: this.layer(`${name}.ff.layers.0`), down: this.layer(`${name}.ff.layers.2`),
      keys: this.room(room), values: this.room(room), // of all tokens read so far: the key/value cache
    };
  }

  // ---- The parts of a block, each for n tokens ----

  linear(x, layer, y, n) { // (n, nIn) -> (n, nOut): y = x Wᵀ + b
    const [at, w, b, to] = [x, layer.weight, layer.bias, y].map((array) => array.byteOffset);
    this.kernel(at, w, b, to, n, layer.nIn, layer.nOut);
  }

  // Each token's vector to mean 0 and variance 1, then scaled and shifted: x -> y, both (n, C)
  layerNorm(x, { scale, shift }, y, n) {
    const C = this.emb_dim;
    for (let start = 0, mean = 0, variance = 0; start < n * C; start += C, mean = variance = 0) {
      for (let c = 0; c < C; c++) mean += x[start + c] / C;
      for (let c = 0; c < C; c++) variance += (x[start + c] - mean) ** 2 / C;
      const factor = 1 / Math.sqrt(variance + 1e-5);
      for (let c = 0; c < C; c++) y[start + c] = (x[start + c] - mean) * factor * scale[c] + shift[c];
    }
  }

  // Causal self-attention of tokens first, first + 1, ... to themselves and all before them.
  // queries and context: (n, C), from token first on; keys and values: (T, C), from token 0 on.
  attention(queries, keys, values, context, first, n, keep) {
    const C = this.emb_dim, D = C / this.n_heads, weights = new Float32Array(first + n);
    context.fill(0, 0, n * C);
    for (let h = 0; h < C; h += D) { // a head reads D columns, from h on
      for (let t = 0; t < n; t++) {
        const q = t * C + h, last = first + t; // the mask: token t sees the tokens up to itself
        let largest = -Infinity, total = 0;
        for (let s = 0; s <= last; s++) {
          const k = s * C + h;
          let score = 0;
          for (let d = 0; d < D; d++) score += queries[q + d] * keys[k + d];
          weights[s] = score / Math.sqrt(D);
          if (weights[s] > largest) largest = weights[s];
        }
        for (let s = 0; s <= last; s++) total += weights[s] = Math.exp(weights[s] - largest); // softmax
        for (let s = 0; s <= last; s++) {
          const weight = (weights[s] /= total), v = s * C + h;
          for (let d = 0; d < D; d++) context[q + d] += weight * values[v + d];
        }
        if (keep) keep.set(weights.subarray(0, last + 1), ((h / D) * n + t) * n); // (H, T, T)
      }
    }
  }

  gelu(x, length) { // 0.5 x (1 + tanh(u)) is x / (1 + exp(-2u)), which is sooner computed
    for (let i = 0; i < length; i++) {
      const u = 0.7978845608028654 * (x[i] + 0.044715 * x[i] ** 3);
      x[i] /= 1 + Math.exp(-2 * u);
    }
  }

  // One transformer block on x, rows first to T - 1 of the residual stream. With only = n, the last n of
  // them come out: the others are needed as keys and values and for nothing else. Returns how many.
  runBlock(block, first, T, only = T - first, keep = null) {
    const C = this.emb_dim, { x, normed, queries, context, wide } = this, all = T - first;
    this.layerNorm(x, block.norm1, normed, all);
    this.linear(normed, block.key, block.keys.subarray(first * C), all);
    this.linear(normed, block.value, block.values.subarray(first * C), all);
    if (only < all) {
      x.copyWithin(0, (all - only) * C, all * C);
      normed.copyWithin(0, (all - only) * C, all * C);
    }
    this.linear(normed, block.query, queries, only);
    this.attention(queries, block.keys, block.values, context, T - only, only, keep);
    this.linear(context, block.out, normed, only);
    for (let i = 0; i < only * C; i++) x[i] += normed[i]; // residual connection
    this.layerNorm(x, block.norm2, normed, only);
    this.linear(normed, block.up, wide, only);
    this.gelu(wide, only * C * 4);
    this.linear(wide, block.down, normed, only);
    for (let i = 0; i < only * C; i++) x[i] += normed[i]; // residual connection
    return only;
  }

  embed(ids, first) { // token plus position embeddings -> x
    const C = this.emb_dim;
    if (ids.length > this.context_length) throw new RangeError(`more than ${this.context_length} tokens`);
    for (let t = first; t < ids.length; t++) {
      for (let c = 0; c < C; c++) {
        const i = (t - first) * C + c;
        this.x[i] = this.value(this.tokEmb, ids[t] * C + c) + this.value(this.posEmb, t * C + c);
      }
    }
  }

  // Final norm and head for the first n rows of x -> (n, number of classes)
  classLogits({ norm, head }, n) {
    const C = this.emb_dim, K = head.bias.length, logits = new Float32Array(n * K);
    this.layerNorm(this.x, norm, this.normed, n);
    for (let i = 0; i < n * K; i++) {
      const row = Math.floor(i / K) * C, k = (i % K) * C;
      logits[i] = head.bias[i % K];
      for (let c = 0; c < C; c++) logits[i] += this.normed[row + c] * head.weight[k + c];
    }
    return logits;
  }

  // ---- What a reader asks for ----

  // Token IDs of a message, cut and padded as in training.
  pad(ids) {
    const T = this.settings.max_length;
    return [...ids.slice(0, T), ...Array(Math.max(0, T - ids.length)).fill(this.vocab_size - 1)];
  }

  // Logits of the last token before and after fine-tuning. The tokens before `first` must be those of the
  // last call: their keys and values are still in the cache.
  classify(ids, first = 0) {
    const T = ids.length, C = this.emb_dim;
    this.embed(ids, first);
    for (let i = 0; i < this.shared; i++) this.runBlock(this.pretrained.blocks[i], first, T);
    const stream = this.x.slice(0, (T - first) * C);
    const [before, after] = [this.pretrained, this.finetuned].map((model) => {
      this.x.set(stream);
      for (let i = this.shared; i < this.n_layers; i++) {
        this.runBlock(model.blocks[i], first, T, i === this.n_layers - 1 ? 1 : undefined);
      }
      return this.classLogits(model, 1);
    });
    return { before, after };
  }

  // Everything that the attention figure shows: for each block the weights (H, T, T), queries and keys
  // (T, C); and the logits of each row, (T, number of classes).
  look(ids, finetuned) {
    const T = ids.length, C = this.emb_dim, model = finetuned ? this.finetuned : this.pretrained;
    this.embed(ids, 0);
    const blocks = model.blocks.map((block) => {
      const weights = new Float32Array(this.n_heads * T * T);
      this.runBlock(block, 0, T, T, weights);
      return { weights, queries: this.queries.slice(0, T * C), keys: block.keys.slice(0, T * C) };
    });
    return { blocks, logits: this.classLogits(model, T) };
  }

  // Logits of the next token, (V,), by the language model; `first` as in classify.
  nextLogits(ids, first = 0) {
    const C = this.emb_dim, { values, scales } = this.tokEmb, logits = new Float32Array(this.vocab_size);
    this.embed(ids, first);
    this.pretrained.blocks.forEach((block, i) =>
      this.runBlock(block, first, ids.length, i === this.n_layers - 1 ? 1 : undefined));
    this.layerNorm(this.x, (this.lmNorm ??= this.norm("final_norm")), this.normed, 1);
    const x = Float32Array.from(this.normed.subarray(0, C));
    for (let v = 0; v < this.vocab_size; v++) { // the output layer is the token embedding, used once more
      let sum = 0;
      for (let c = 0, w = v * C; c < C; c++) sum += x[c] * values[w + c];
      logits[v] = scales ? sum * scales[v] : sum;
    }
    return logits;
  }
}

// Float16 has a sign, 5 bits of exponent and 10 of fraction; float32 has 1, 8 and 23. Each part is moved to
// its place; an exponent is stored with 15 added in float16 and 127 in float32, so 112 are missing.
function halvesToFloats(halves) {
  const floats = new Float32Array(halves.length), bits = new Uint32Array(floats.buffer);
  for (let i = 0; i < halves.length; i++) {
    bits[i] = ((halves[i] & 0x8000) << 16) | ((halves[i] & 0x7fff) << 13);
    floats[i] *= 2 ** 112;
  }
  return floats;
}

if (typeof module !== "undefined") module.exports = { GPT2 };
