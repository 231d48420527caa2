// Lesson 05: what each row attends to, in every layer and head, and how the last row becomes two scores.

Live.define("attention", (ui, body) => {
  const { h, svg, words, say, number, percent, visible, example, build } = ui;
  const { n_layers: L, n_heads: H, emb_dim: C } = build.config, D = C / H;
  const stored = example.text, whole = (key) => ({ ...example[key], blocks: [...example.shared, ...example[key].own] });
  let model = "before", padded = false, layer = L - 1, head = 0, cell = null, data = null, turn = 0, side = 0;

  const [label, text] = ui.field(words.message, { rows: 2, value: stored, oninput: () => read() });
  const which = ui.choice("model", words.model_, [["before", words.before], ["after", words.after]], model, (key) => { model = key; read(); });
  const pad = h("input", { type: "checkbox", id: ui.id("pad"), onchange: () => { padded = pad.checked; read(); } });
  const heads = h("div", { class: "live-heads", role: "radiogroup", "aria-label": words.heads, style: { "--heads": H } });
  const thumbs = Array.from({ length: L * H }, (_, i) => h("button", {
    type: "button", role: "radio", tabindex: -1, "aria-checked": "false", class: "live-head",
    "aria-label": say(words.headName, { layer: Math.floor(i / H) + 1, head: (i % H) + 1 }),
    onclick: () => choose(i),
  }, h("canvas", { "aria-hidden": "true" })));
  heads.append(h("span", { class: "live-axis" }, ""), ...Array.from({ length: H }, (_, i) => h("span", { class: "live-axis", "aria-hidden": "true" }, number(i + 1))),
    ...thumbs.flatMap((thumb, i) => (i % H ? [thumb] : [h("span", { class: "live-axis", "aria-hidden": "true" }, number(i / H + 1)), thumb])));
  ui.rove(heads, () => thumbs, (i) => choose(i)).reset();

  const title = h("div", { class: "live-heading" });
  const canvas = h("canvas", { class: "live-cells", "aria-hidden": "true" });
  const frame = h("div", { class: "live-cursor", "aria-hidden": "true" });
  const labels = h("div", { "aria-hidden": "true" });
  const matrix = h("div", {
    class: "live-matrix", tabindex: 0, role: "application", "aria-label": words.matrix,
    onpointermove: point, onpointerdown: point, onkeydown: move,
  }, labels, canvas, frame);
  const hint = h("p", { class: "live-note" }, words.hint);
  const detail = h("p", { class: "live-note live-detail", "aria-live": "polite" });
  const dots = h("div", { class: "live-dots" });
  const last = ui.output("last-row", { class: "live-last", for: ui.id("text") });
  const foot = ui.modelBar(() => read());
  const violet = () => getComputedStyle(ui.root).getPropertyValue("--tone-attention");
  const weight = (row, column, i = layer * H + head) => data.blocks[Math.floor(i / H)].weights[((i % H) * data.T + row) * data.T + column];

  // Cells of one head into a canvas: the stronger the colour, the larger the weight; masked cells are hatched.
  function paint(target, i, size) {
    const { T } = data, context = target.getContext("2d"), colour = violet();
    target.width = target.height = T * size;
    context.clearRect(0, 0, T * size, T * size);
    for (let row = 0; row < T; row++) {
      for (let column = 0; column <= row; column++) {
        context.globalAlpha = weight(row, column, i) ** 0.6;
        context.fillStyle = colour;
        context.fillRect(column * size, row * size, size - (size > 8 ? 1 : 0), size - (size > 8 ? 1 : 0));
      }
    }
    context.globalAlpha = 0.3;
    context.strokeStyle = getComputedStyle(ui.root).color;
    context.beginPath();
    if (size > 8) {
      for (let row = 0; row < T; row++) {
        for (let column = row + 1; column < T; column++) {
          const [x, y, s] = [column * size, row * size, size - 1];
          context.moveTo(x + s * 0.3, y + s * 0.7);
          context.lineTo(x + s * 0.7, y + s * 0.3);
        }
      }
    } else {
      for (let i = 0; i < T; i++) { context.moveTo(i * size, i * size); context.lineTo((i + 1) * size, i * size); context.lineTo((i + 1) * size, (i + 1) * size); }
    }
    context.stroke();
  }

  function draw() {
    const { T, tokens, logits } = data, ratio = Math.min(3, window.devicePixelRatio || 1);
    const width = matrix.clientWidth, names = [Math.min(110, width * 0.26), Math.min(132, width * 0.36)];
    const roomy = (width - names[0] - names[1]) / T >= 15; // for names and numbers beside the cells
    const [left, right] = roomy ? names : [0, Math.min(64, width * 0.2)];
    side = Math.max(2, Math.min(44, Math.floor((width - left - right) / T)));
    const top = roomy ? 74 : 22, area = side * T;
    thumbs.forEach((thumb, i) => paint(thumb.firstChild, i, Math.max(1, Math.ceil(44 / T))));
    paint(canvas, layer * H + head, Math.max(1, Math.round(side * ratio)));
    Object.assign(canvas.style, { left: `${left}px`, top: `${top}px`, width: `${area}px`, height: `${area}px` });
    matrix.style.height = `${top + area + 4}px`;
    const at = (x, y, attributes, ...children) => h("span", { ...attributes, style: { left: `${x}px`, top: `${y}px`, ...attributes.style } }, ...children);
    labels.replaceChildren();
    const scoreAt = left + area + 10;
    for (let t = 0; t < T; t++) {
      const margin = logits[2 * t + 1] - logits[2 * t], y = top + t * side;
      if (roomy) {
        labels.append(at(0, y, { class: "live-rowname", style: { width: `${left - 6}px`, height: `${side}px`, "line-height": `${side}px` }, "data-t": t }, visible(tokens[t].text)),
          at(left + (t + 0.5) * side, top - 6, { class: "live-columnname", "data-t": t }, visible(tokens[t].text)),
          ...[0, 1].map((k) => at(scoreAt + k * (right / 2 - 4), y, { class: "live-logit", style: { height: `${side}px`, "line-height": `${side}px`, width: `${right / 2 - 8}px` } }, number(logits[2 * t + k], 2))));
      } else {
        labels.append(at(scoreAt, y, { class: "live-margin", "data-towards": margin > 0 ? "spam" : "ham", style: { height: `${Math.max(1, side - (side > 4 ? 1 : 0))}px`, width: `${right - 12}px`, "--strength": Math.min(1, Math.abs(margin) / 3) } }));
      }
    }
    if (roomy) {
      labels.append(...[words.ham, words.spam].map((name, k) => at(scoreAt + (k + 0.5) * (right / 2 - 4), top - 6, { class: "live-columnname live-class" }, name)));
    }
    let message = T; // tokens before the padding
    while (message > 0 && tokens[message - 1].id === build.config.vocab_size - 1) message -= 1;
    if (message < T && !roomy) {
      labels.append(at(left + message * side, 0, { class: "live-padding", style: { height: `${top + area}px` } }, words.padding));
    }
    labels.append(at(left - 3, top + (T - 1) * side - 2, { class: "live-lastrow", style: { width: `${scoreAt + right - 2 - left}px`, height: `${side + 3}px` } }));
    matrix.dataset.left = left;
    matrix.dataset.top = top;
    title.textContent = say(words.title, { layer: layer + 1, head: head + 1 });
    thumbs.forEach((thumb, i) => thumb.setAttribute("aria-checked", i === layer * H + head));
    const odds = logits[2 * T - 1] - logits[2 * T - 2], spam = 1 / (1 + Math.exp(-odds));
    ui.set(last, spam, say(T === 1 ? words.lastOne : words.last, { n: T, ham: number(logits[2 * T - 2], 2), spam: number(logits[2 * T - 1], 2), percent: percent(spam, 1) }));
    if (cell && cell.row < T && cell.column < T) select(cell.row, cell.column);
    else select(T - 1, 0);
  }

  function select(row, column) {
    cell = { row, column };
    const { tokens } = data, name = (t) => visible(tokens[t].text);
    labels.querySelectorAll("[data-t]").forEach((each) => each.classList.toggle("live-lit",
      Number(each.dataset.t) === (each.classList.contains("live-rowname") ? row : column)));
    Object.assign(frame.style, { left: `${Number(matrix.dataset.left) + column * side}px`, top: `${Number(matrix.dataset.top) + row * side}px`, width: `${side}px`, height: `${side}px` });
    frame.hidden = false;
    if (column > row) {
      detail.textContent = say(words.masked, { row: name(row), column: name(column) });
      dots.replaceChildren();
      return;
    }
    detail.textContent = say(words.cell, { row: name(row), column: name(column), r: row + 1, c: column + 1, weight: percent(weight(row, column), 1) });
    const { queries, keys } = data.blocks[layer];
    const part = (values, t) => Array.from({ length: D }, (_, d) => values[t * C + head * D + d]);
    const q = part(queries, row), k = part(keys, column), products = q.map((value, d) => value * k[d]);
    const score = products.reduce((a, b) => a + b) / Math.sqrt(D);
    dots.replaceChildren(...[[words.query, q], [words.key, k], [words.product, products]].map(([name_, values]) => h("div", {}, h("span", {}, name_), bars(values))),
      h("p", { class: "live-note" }, say(words.score, { score: number(score, 2), d: D })));
  }

  function bars(values) {
    const largest = Math.max(...values.map(Math.abs), 1e-9), W = 6;
    return svg("svg", { viewBox: `0 0 ${values.length * W} 30`, preserveAspectRatio: "none", "aria-hidden": "true" },
      svg("line", { x1: 0, x2: values.length * W, y1: 15, y2: 15, class: "live-zero" }),
      values.map((value, i) => {
        const height = (Math.abs(value) / largest) * 14;
        return svg("rect", { x: i * W + 0.5, width: W - 1, y: value > 0 ? 15 - height : 15, height, class: value > 0 ? "live-plus" : "live-minus" });
      }));
  }

  function point(event) {
    const box = canvas.getBoundingClientRect(), { T } = data;
    const column = Math.floor(((event.clientX - box.left) / box.width) * T), row = Math.floor(((event.clientY - box.top) / box.height) * T);
    if (column < 0 || row < 0 || column >= T || row >= T || (cell && cell.row === row && cell.column === column)) return;
    select(row, column);
  }

  function move(event) {
    const [down, right] = { ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key] ?? [];
    if (down === undefined) return;
    event.preventDefault();
    const inside = (i) => Math.max(0, Math.min(data.T - 1, i));
    select(inside((cell?.row ?? 0) + down), inside((cell?.column ?? 0) + right));
  }

  function choose(i) {
    if (layer === Math.floor(i / H) && head === i % H) return;
    [layer, head] = [Math.floor(i / H), i % H];
    draw();
  }

  function show(result) {
    if (data?.T !== result.tokens.length) cell = null;
    data = { ...result, T: result.tokens.length };
    draw();
  }

  const look = ui.latest(async (message, now) => {
    const result = await ui.engine.ask("look", { text: message, finetuned: model === "after", padded });
    if (now !== turn) return;
    show(result);
    ui.announce(last.textContent);
  });

  function read() {
    turn += 1;
    if (text.value === stored && !padded) show(whole(model));
    else look(text.value, turn);
  }

  body.append(
    h("div", { class: "live-field" }, label, text),
    h("div", { class: "live-row" }, which.element,
      h("span", { class: "live-check" }, pad, h("label", { for: ui.id("pad") }, say(words.padTo, { max: build.settings.max_length }))),
      ui.button(words.reset, () => {
        [text.value, model, padded, layer, head, cell] = [stored, "before", false, L - 1, 0, null];
        pad.checked = false;
        which.set(model);
        read();
      }, { class: "live-button live-reset" })),
    h("div", { class: "live-attention" },
      h("div", {}, h("div", { class: "live-heading" }, words.heads), heads),
      h("div", {}, title, matrix, hint)),
    h("p", {}, last), detail, dots,
    h("div", { class: "live-foot" }, foot),
  );
  show(whole(model));
  let width = 0;
  new ResizeObserver(() => { if (matrix.clientWidth !== width) { width = matrix.clientWidth; draw(); } }).observe(matrix);
  new MutationObserver(draw).observe(document.documentElement, { attributeFilter: ["data-theme"] });
});
