// Lesson 06: which parts may change: numbers, work, memory, and the accuracy that was measured.

Live.define("trainable", (ui, body) => {
  const { h, svg, words, say, number, percent, example } = ui;
  const plot = Live.plot(ui), { n_layers: L, emb_dim: C, vocab_size: V, context_length: T } = ui.build.config;
  const keys = Object.keys(words.choices).filter((key) => example.runs[key]), start = "last block";
  let chosen = start;

  // The parts of the stack, from input to output, with their parameters; LoRA trains small matrices in each block.
  const block = 12 * C * C + 13 * C;
  const stack = [{ name: words.parts.embeddings, count: (V + T) * C, kind: "embeddings" },
    ...Array.from({ length: L }, (_, i) => ({ name: say(words.parts.block, { n: i + 1 }), count: block, kind: i })),
    { name: words.parts.norm, count: 2 * C, kind: "norm" }, { name: words.parts.head, count: 2 * C + 2, kind: "head" }];
  const total = stack.reduce((sum, part) => sum + part.count, 0);
  const trains = (kind) => {
    if (kind === "head") return 1;
    if (chosen === "head") return 0;
    if (chosen === "LoRA") return typeof kind === "number" ? 0.5 : 0;
    if (chosen === "all") return 1;
    return kind === "norm" || (typeof kind === "number" && kind >= L - (chosen === "last block" ? 1 : 2)) ? 1 : 0;
  };

  // Forward pass: 1. Backward: for each block that gradients reach, 1/L for the inputs and 1/L for the weights that train.
  function work() {
    const reached = chosen === "head" ? 0 : chosen === "last block" ? 1 : chosen === "last two blocks" ? 2 : L;
    return 1 + (reached / L) * (chosen === "LoRA" ? 1 : 2);
  }

  const choice = ui.choice("parts", words.choose, keys.map((key) => [key, words.choices[key]]), chosen, (key) => { chosen = key; draw(); ui.announce(say(words.said, { n: outputs.trained.textContent, accuracy: outputs.accuracy.textContent })); });
  const column = h("div", { class: "live-stack", role: "img" });
  const rows = stack.map((part) => h("div", {}, h("span", {}, part.name), h("span", {}, number(part.count))));
  column.append(...rows);
  const outputs = Object.fromEntries(["trained", "ofAll", "work", "state", "accuracy"].map((name) => [name, ui.output(name)]));
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
          svg("line", { x1: x(mean(runs)), x2: x(mean(runs)), y1: y - 9, y2: y + 9, class: "live-now" }),
          runs.map((run) => svg("circle", { cx: x(run), cy: y, r: 5, class: `live-run ${key === chosen ? "live-chosen" : ""}` }))];
      }),
      plot.xAxis(x, [low, high], bottom, null, (v) => percent(v), width < 480 ? 3 : 6),
    ] };
  });

  function draw() {
    const { test, parameters } = example.runs[chosen];
    rows.forEach((row, i) => { row.dataset.trains = trains(stack[i].kind); });
    column.setAttribute("aria-label", say(words.stack, { trained: number(parameters), all: number(total) }));
    ui.set(outputs.trained, parameters, number(parameters));
    ui.set(outputs.ofAll, parameters / total, percent(parameters / total, parameters / total < 0.1 ? 2 : 0));
    ui.set(outputs.work, work(), say(words.times, { n: number(work(), 1) }));
    ui.set(outputs.state, parameters * 12, say(words.megabytes, { n: number((parameters * 12) / 1e6, parameters < 1e5 ? 3 : 1) }));
    ui.set(outputs.accuracy, mean(test), percent(mean(test), 1));
    measured.textContent = say(words.measured, { n: test.length });
    compare.update();
  }

  body.append(
    h("div", { class: "live-row" }, choice.element, ui.button(words.reset, () => { chosen = start; choice.set(start); draw(); }, { class: "live-button live-reset" })),
    h("div", { class: "live-trainable" }, column, h("div", { class: "live-numbers" }, Object.keys(outputs).map((name) => h("div", {}, h("span", {}, words[name]), outputs[name])))),
    h("p", { class: "live-note" }, words.workNote),
    h("div", { class: "live-heading" }, words.compare), h("div", {}, compare.root),
    h("p", { class: "live-note" }, words.seeds), measured,
  );
  draw();
});
