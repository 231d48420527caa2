// Lesson 02: where the parameters of GPT-2 sit, in five sizes.

Live.define("anatomy", (ui, body) => {
  const { h, words, say, number, percent, example } = ui, names = Object.keys(example.models);
  let chosen = "tok_emb";

  // For each part: the formula with its numbers, parameters in one place, and in how many places.
  function parts({ vocab_size: V, context_length: T, emb_dim: C, n_layers: L }) {
    const n = (x) => number(x);
    return {
      tok_emb: { formula: `${n(V)} × ${n(C)}`, count: V * C, times: 1 },
      pos_emb: { formula: `${n(T)} × ${n(C)}`, count: T * C, times: 1 },
      attention: { formula: `4 × ${n(C)}² + 4 × ${n(C)}`, count: 4 * C * C + 4 * C, times: L },
      feed_forward: { formula: `8 × ${n(C)}² + 5 × ${n(C)}`, count: 8 * C * C + 5 * C, times: L },
      norms: { formula: `4 × ${n(C)}`, count: 4 * C, times: L, extra: 2 * C },
    };
  }

  const size = ui.slider("size", words.size, { min: 0, max: names.length - 1, step: 1, value: 0, show: (i) => names[i], oninput: () => { draw(); } });
  const area = h("div", { class: "live-areas", role: "group", "aria-label": words.parts });
  const pieces = Object.keys(words.names).map((key) => h("button", { type: "button", "data-part": key, "aria-pressed": "false", onclick: () => { chosen = key; draw(); } }, h("span", {}), h("small", {})));
  area.append(...pieces);
  const outputs = Object.fromEntries(["total", "memory", "width", "layers", "heads"].map((name) => [name, ui.output(name, { for: ui.id("size") })]));
  const detail = h("p", { "aria-live": "polite" });

  function draw() {
    const cfg = example.models[names[size.value]], list = parts(cfg);
    const all = (key) => list[key].count * list[key].times + (list[key].extra ?? 0);
    const total = Object.keys(list).reduce((sum, key) => sum + all(key), 0);
    pieces.forEach((piece) => {
      const key = piece.dataset.part, share = all(key) / total;
      piece.style.flexGrow = share;
      piece.setAttribute("aria-pressed", key === chosen);
      piece.dataset.small = share < 0.12;
      piece.firstChild.textContent = words.names[key];
      piece.lastChild.textContent = percent(share, share < 0.1 ? 1 : 0);
    });
    ui.set(outputs.total, total, number(total));
    const bytes = total * 4;
    ui.set(outputs.memory, bytes, bytes < 1e9 ? say(words.megabytes, { n: number(bytes / 1e6) }) : say(words.gigabytes, { n: number(bytes / 1e9, 1) }));
    [["width", cfg.emb_dim], ["layers", cfg.n_layers], ["heads", cfg.n_heads]].forEach(([name, value]) => ui.set(outputs[name], value, number(value)));
    const { formula, count, times } = list[chosen], share = percent(all(chosen) / total, 1);
    detail.textContent = say(times > 1 ? words.formulas : words.formula, { name: words.names[chosen], formula, n: number(count), layers: times, all: number(all(chosen)), share });
  }

  body.append(
    size.element,
    h("div", { class: "live-heading" }, words.parts), area, detail,
    h("div", { class: "live-numbers live-counts" }, Object.keys(outputs).map((name) => h("div", {}, h("span", {}, words[name]), outputs[name]))),
    h("p", { class: "live-note" }, words.shared),
    h("div", { class: "live-row" }, h("span", { class: "live-note" }, words.hint), ui.button(words.reset, () => { chosen = "tok_emb"; size.value = 0; draw(); }, { class: "live-button live-reset" })),
  );
  draw();
});
