// Lesson 06: which parts may change: numbers, work, time, memory, and the accuracy that was measured.

Live.define("trainable", (ui, body) => {
  const { h, svg, words, say, number, percent, example } = ui;
  const plot = Live.plot(ui), { n_layers: L, emb_dim: C, vocab_size: V, context_length: N } = ui.build.config;
  const keys = Object.keys(words.choices).filter((key) => example.runs[key]), start = "last block";
  const open = Object.keys(words.choices).filter((key) => !example.runs[key]);
  let chosen = start;

  // The parts of the stack, from input to output, with their parameters.
  const block = 12 * C * C + 13 * C;
  const stack = [{ name: words.parts.embeddings, count: (V + N) * C, kind: "embeddings" },
    ...Array.from({ length: L }, (_, i) => ({ name: say(words.parts.block, { n: i + 1 }), count: block, kind: i })),
    { name: words.parts.norm, count: 2 * C, kind: "norm" }, { name: words.parts.head, count: 2 * C + 2, kind: "head" }];
  const total = stack.reduce((sum, part) => sum + part.count, 0);
  const opened = { head: [], "first block": [0], "last block": [L - 1], "last two blocks": [L - 2, L - 1] };
  const trains = (kind) => chosen === "all" || kind === "head" || (kind === "norm" && chosen !== "head") || opened[chosen].includes(kind);

  // Operations of a forward pass of one message, padded to T tokens: matrix products, attention, head.
  const T = ui.build.settings.max_length, forward = L * (2 * T * 12 * C * C + 4 * T * T * C) + 2 * T * C * 2;

  const choice = ui.choice("parts", words.choose, keys.map((key) => [key, words.choices[key]]), chosen, (key) => { chosen = key; draw(); ui.announce(say(words.said, { n: outputs.trained.textContent, accuracy: outputs.accuracy.textContent })); });
  const column = h("div", { class: "live-stack", role: "img" });
  const rows = stack.map((part) => h("div", {}, h("span", {}, part.name), h("span", {}, number(part.count))));
  column.append(...rows);
  const outputs = Object.fromEntries(["trained", "ofAll", "work", "time", "memory", "accuracy"].map((name) => [name, ui.output(name)]));
  const measured = h("p", { class: "live-note" });
  const mean = (runs) => runs.reduce((a, b) => a + b) / runs.length;

  const compare = plot.drawing({ role: "img", "aria-label": words.compare }, (width) => {
    const left = Math.min(150, width * 0.46), all = keys.flatMap((key) => example.runs[key].test);
    const [low, high] = [Math.floor(Math.min(...all) * 20) / 20, Math.ceil(Math.max(...all) * 20) / 20], x = plot.scale([low, high], [left, width - 20]);
    const bottom = 12 + keys.length * 30;
    return { height: bottom + 40, children: [
      plot.ticks(low, high, width < 480 ? 3 : 6).map((v) => svg("line", { x1: x(v), x2: x(v), y1: 4, y2: bottom, class: "live-grid" })),
      keys.map((key, i) => {
        const y = 20 + i * 30, runs = example.runs[key].test;
        return [plot.text(left - 12, y + 4, words.choices[key], { "text-anchor": "end", class: key === chosen ? "live-strong" : "" }),
          svg("line", { x1: x(Math.min(...runs)), x2: x(Math.max(...runs)), y1: y, y2: y, class: "live-line" }),
          svg("line", { x1: x(mean(runs)), x2: x(mean(runs)), y1: y - 9, y2: y + 9, class: "live-now" }),
          runs.map((run) => svg("circle", { cx: x(run), cy: y, r: 5, class: `live-run ${key === chosen ? "live-chosen" : ""}` }))];
      }),
      plot.xAxis(x, [low, high], bottom, null, (v) => percent(v), width < 480 ? 3 : 6),
    ] };
  });

  // A cost, or that it is not measured yet.
  const cost = (output, value, text) => ui.set(output, value ?? "", value === null ? words.notMeasured : text(value));

  function draw() {
    const { test, failed, parameters, operations, seconds, megabytes } = example.runs[chosen];
    rows.forEach((row, i) => { row.dataset.trains = Number(trains(stack[i].kind)); });
    column.setAttribute("aria-label", say(words.stack, { trained: number(parameters), all: number(total) }));
    ui.set(outputs.trained, parameters, number(parameters));
    ui.set(outputs.ofAll, parameters / total, percent(parameters / total, parameters / total < 0.1 ? 2 : 0));
    cost(outputs.work, operations, (n) => say(words.times, { n: number(n / forward, 2) }));
    cost(outputs.time, seconds, (s) => say(words.milliseconds, { n: number(1000 * s, 1) }));
    cost(outputs.memory, megabytes, (n) => say(words.megabytes, { n: number(n) }));
    ui.set(outputs.accuracy, mean(test), percent(mean(test), 1));
    const lost = failed.filter(Boolean).length;
    measured.textContent = [say(words.measured, { n: test.length, low: percent(Math.min(...test), 1), high: percent(Math.max(...test), 1) }),
      lost && say(words.failed, { n: lost })].filter(Boolean).join(" ");
    compare.update();
  }

  body.append(
    h("div", { class: "live-row" }, choice.element, ui.button(words.reset, () => { chosen = start; choice.set(start); draw(); }, { class: "live-button live-reset" })),
    h("div", { class: "live-trainable" }, column, h("div", { class: "live-numbers" }, Object.keys(outputs).map((name) => h("div", {}, h("span", {}, words[name]), outputs[name])))),
    h("p", { class: "live-note" }, words.costNote),
    h("div", { class: "live-heading" }, words.compare), h("div", {}, compare.root),
    h("p", { class: "live-note" }, words.seeds), measured,
    ...(open.length ? [h("p", { class: "live-note" }, say(words.missing, { names: open.map((key) => words.choices[key]).join("; ") }))] : []),
  );
  draw();
});
