// The engine's side: a worker holds the model, so that the page stays free to scroll and draw.
// The page sends { id, ask, args }; back come { id, answer } or { id, error }.

let tokenizer, gpt2;
let cached = null; // what the last call left in the model's cache of keys and values: { kind, ids }

// How many tokens from the start on need not be computed again: the mask keeps what comes later from them.
function known(kind, ids) {
  let n = 0;
  while (cached?.kind === kind && n < ids.length - 1 && ids[n] === cached.ids[n]) n += 1;
  cached = { kind, ids };
  return n;
}

function classifyIds(ids) {
  const padded = gpt2.pad(ids);
  return gpt2.classify(padded, known("classify", padded));
}

// Probabilities of the next token: softmax of logits / temperature over the topK largest of them (0: all).
// Temperature 0 is greedy: all probability is with the largest.
function nextProbabilities(logits, { temperature = 1, topK = 0 } = {}) {
  const probabilities = new Float32Array(logits.length);
  const largest = logits.reduce((a, b) => Math.max(a, b));
  if (temperature === 0) topK = 1;
  const lowest = topK ? Float32Array.from(logits).sort()[Math.max(0, logits.length - topK)] : -Infinity;
  let total = 0;
  logits.forEach((logit, v) => {
    if (logit >= lowest) total += probabilities[v] = Math.exp((logit - largest) / (temperature || 1));
  });
  return probabilities.map((p) => p / total);
}

// The k tokens with the largest logits, in that order.
function best(logits, k) {
  const lowest = Float32Array.from(logits).sort()[logits.length - k], found = [];
  logits.forEach((logit, v) => { if (logit >= lowest) found.push(v); });
  return found.sort((a, b) => logits[b] - logits[a]).slice(0, k);
}

// Draw a token: random is a number from 0 to 1.
function draw(probabilities, random) {
  let token = 0;
  for (let sum = probabilities[0]; sum <= random && token < probabilities.length - 1;) sum += probabilities[++token];
  while (probabilities[token] === 0 && token > 0) token -= 1; // rounding at the very end
  return token;
}

const softmax = (logits) => {
  const largest = Math.max(...logits), odds = Array.from(logits, (logit) => Math.exp(logit - largest));
  return odds.map((o) => o / odds.reduce((a, b) => a + b));
};

// Token IDs with the text of each token; a token that is part of a character shows its bytes.
const named = (ids) => ids.map((id) => ({ id, text: tokenizer.decode([id]) }));

const answers = {
  load({ header, data }) {
    const { offset, length } = header.vocab;
    tokenizer = new Tokenizer(new TextDecoder().decode(new Uint8Array(data, offset, length)));
    gpt2 = new GPT2(header, data);
  },

  tokens(text) {
    const ids = tokenizer.encode(text);
    return { tokens: named(ids), bytes: ids.map((id) => tokenizer.characters[id].length) };
  },

  // Logits and probability of spam before and after fine-tuning.
  classify(text) {
    const ids = tokenizer.encode(text), { before, after } = classifyIds(ids);
    return {
      ids, tokens: named(ids.slice(0, gpt2.settings.max_length)), total: ids.length,
      before: Array.from(before), after: Array.from(after), spamBefore: softmax(before)[1], spam: softmax(after)[1],
    };
  },

  // Log-odds of spam without token i. Asked for i from the last token to the first, a call costs only what
  // stands behind the gap.
  without({ ids, i }) {
    const [ham, spam] = classifyIds(ids.filter((_, j) => j !== i)).after;
    return spam - ham;
  },

  look({ text, finetuned, padded }) {
    let ids = tokenizer.encode(text).slice(0, gpt2.settings.max_length);
    if (!ids.length || padded) ids = gpt2.pad(ids);
    const { blocks, logits } = gpt2.look(ids, finetuned);
    cached = null;
    return { tokens: named(ids), blocks, logits, heads: gpt2.n_heads };
  },

  // The most probable next tokens after a text and what was appended to it, and the one that is taken.
  next({ text, appended, greedy, temperature, topK, random, show }) {
    const prompt = tokenizer.encode(text, true);
    if (!prompt.length) prompt.push(tokenizer.endOfText);
    const window = [...prompt, ...appended].slice(-gpt2.context_length);
    const logits = gpt2.nextLogits(window, known("next", window));
    const probabilities = nextProbabilities(logits, greedy ? {} : { temperature, topK });
    const order = best(logits, show);
    const drawn = greedy ? order[0] : draw(probabilities, random);
    return {
      prompt, continuation: tokenizer.decode(appended), drawn, drawnText: tokenizer.decode([drawn]),
      bars: order.map((id) => ({ id, text: tokenizer.decode([id]), probability: probabilities[id] })),
    };
  },
};

if (typeof self !== "undefined") self.onmessage = ({ data: { id, ask, args } }) => {
  try {
    self.postMessage({ id, answer: answers[ask](args) });
  } catch (error) {
    self.postMessage({ id, error: String(error?.message ?? error) });
  }
};

if (typeof module !== "undefined") module.exports = { nextProbabilities, draw };
