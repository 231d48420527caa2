// Lesson 07: slide a bias under all margins: accuracy moves in steps, the loss smoothly, with a slope.

Live.define("loss", (ui, body) => {
  const { h, svg, words, say, number, percent, example } = ui;
  const plot = Live.plot(ui), { labels, texts } = example, N = labels.length, WIDEST = 8;
  let when = "before", bias = 0, chosen = null;

  const share = labels.reduce((a, b) => a + b) / N;
  const sigmoid = (x) => 1 / (1 + Math.exp(-x));
  const margins = () => example[when];
  const accuracyAt = (b) => margins().filter((m, i) => (m + b > 0) === (labels[i] === 1)).length / N;
  // Accuracy over the bias, exactly: it jumps where a margin changes its sign, at b = -m.
  function stairs() {
    const jumps = margins().map((m, i) => [-m, labels[i] ? 1 / N : -1 / N]).filter(([b]) => Math.abs(b) < WIDEST).sort((a, b) => a[0] - b[0]);
    let level = accuracyAt(-WIDEST);
    return [[-WIDEST, level], ...jumps.flatMap(([b, step]) => [[b, level], [b, (level += step)]]), [WIDEST, level]];
  }
  const lossAt = (b) => margins().reduce((sum, m, i) => {
    const z = (labels[i] ? 1 : -1) * (m + b); // cross-entropy of the right class: log(1 + exp(-z))
    return sum + (z > 0 ? Math.log1p(Math.exp(-z)) : -z + Math.log1p(Math.exp(z)));
  }, 0) / N;
  const slopeAt = (b) => margins().reduce((sum, m) => sum + sigmoid(m + b), 0) / N - share;

  const slider = ui.slider("bias", words.bias, { min: -WIDEST, max: WIDEST, step: 0.05, value: 0, show: (b) => number(b, 2),
    oninput: (b) => { bias = b; draw(); ui.announce(say(words.said, { accuracy: accuracy.textContent, loss: loss.textContent, slope: slope.textContent })); } });
  const model = ui.choice("model", words.model_, [["before", words.before], ["after", words.after]], when, (key) => { when = key; draw(); });
  const accuracy = ui.output("accuracy"), loss = ui.output("loss"), slope = ui.output("slope");
  const detail = h("p", { class: "live-note live-detail", "aria-live": "polite" }, words.hint);

  const dots = plot.drawing({ role: "img", "aria-label": words.dots }, (width) => {
    const room = 100, base = room + 16, reach = 4.5;
    const x = plot.scale([-reach, reach], [8, width - 8]), radius = width < 480 ? 2.5 : 3.5;
    const points = margins().map((m, i) => ({ x: Math.max(-reach + 0.1, Math.min(reach - 0.1, m + bias)), i, wrong: (m + bias > 0) !== (labels[i] === 1), followed: i === chosen }));
    return { height: 2 * room + 58, children: [
      svg("line", { x1: x(0), x2: x(0), y1: 4, y2: base + room, class: "live-decision" }),
      plot.text(x(0) - 8, 12, words.calledHam, { "text-anchor": "end", class: "live-strong" }),
      plot.text(x(0) + 8, 12, words.calledSpam, { class: "live-strong" }),
      svg("line", { x1: 8, x2: width - 8, y1: base, y2: base, class: "live-line" }),
      plot.pile(points.filter((p) => labels[p.i] === 1), x, base, true, radius, room - 8),
      plot.pile(points.filter((p) => labels[p.i] === 0), x, base, false, radius, room - 8),
      plot.text(10, base - 8, words.spam, { class: "live-halo" }), plot.text(10, base + 18, words.ham, { class: "live-halo" }),
      plot.ticks(-reach, reach, 6).map((v) => plot.text(x(v), base + room + 18, number(v), { "text-anchor": "middle" })),
      plot.text(width / 2, base + room + 36, words.margin, { "text-anchor": "middle", class: "live-axisname" }),
    ] };
  });
  dots.root.addEventListener("pointermove", follow);
  dots.root.addEventListener("pointerdown", follow);

  const curves = plot.drawing({ role: "img", "aria-label": words.curves }, (width) => {
    const steps = Array.from({ length: 241 }, (_, i) => -WIDEST + (i / 240) * 2 * WIDEST);
    const highest = Math.max(1, ...[-WIDEST, WIDEST].map(lossAt)), left = 44, gap = 22, height = 96;
    const x = plot.scale([-WIDEST, WIDEST], [left, width - 8]);
    const one = (top, points, y, name, format, ends, extra) => [
      plot.text(left, top - 8, name, { class: "live-strong live-halo" }),
      ends.map((v) => [svg("line", { x1: left, x2: width - 8, y1: y(v), y2: y(v), class: "live-grid" }), plot.text(left - 6, y(v) + 4, format(v), { "text-anchor": "end" })]),
      svg("polyline", { points: points.map(([b, v]) => `${x(b)},${y(v)}`).join(" "), class: `live-curve ${extra}` }),
    ];
    const ya = plot.scale([0, 1], [24 + height, 24]), yl = plot.scale([0, highest], [24 + 2 * height + gap + 20, 24 + height + gap + 20]);
    const s = slopeAt(bias), reach = 1.6, bottom = 24 + 2 * height + gap + 20;
    return { height: bottom + 44, children: [
      svg("line", { x1: x(bias), x2: x(bias), y1: 18, y2: bottom, class: "live-decision" }),
      one(24, stairs(), ya, words.accuracy, (v) => percent(v), [0, 0.5, 1], "live-stairs"),
      one(24 + height + gap + 20, steps.map((b) => [b, lossAt(b)]), yl, words.loss, (v) => (v === Math.log(2) ? words.log2 : number(v, 1)), [Math.log(2), highest], ""),
      svg("line", { x1: x(bias - reach), x2: x(bias + reach), y1: yl(lossAt(bias) - s * reach), y2: yl(lossAt(bias) + s * reach), class: "live-tangent" }),
      svg("circle", { cx: x(bias), cy: ya(accuracyAt(bias)), r: 5, fill: "currentColor" }),
      svg("circle", { cx: x(bias), cy: yl(lossAt(bias)), r: 5, fill: "currentColor" }),
      plot.xAxis(x, [-WIDEST, WIDEST], bottom, words.bias, (v) => number(v), 8),
    ] };
  });

  function follow(event) {
    const i = event.target.dataset?.i;
    if (i === undefined || Number(i) === chosen) return;
    chosen = Number(i);
    describe();
    dots.update();
  }

  function describe() {
    if (chosen === null) { detail.textContent = words.hint; return; }
    const p = sigmoid(margins()[chosen] + bias);
    detail.textContent = say(labels[chosen] ? words.ofSpam : words.ofHam, { text: texts[chosen], p: number(p, 2), pull: number(p - labels[chosen], 2) });
  }

  function draw() {
    ui.set(accuracy, accuracyAt(bias), percent(accuracyAt(bias), 1));
    ui.set(loss, lossAt(bias), number(lossAt(bias), 3));
    ui.set(slope, slopeAt(bias), number(slopeAt(bias), 3));
    describe();
    dots.update();
    curves.update();
  }

  body.append(
    h("div", { class: "live-row" }, model.element, ui.button(words.best, () => {
      for (let i = 0; i < 60; i++) bias -= slopeAt(bias) * 2; // gradient descent on one number
      bias = Math.max(-WIDEST, Math.min(WIDEST, bias));
      slider.value = bias;
      draw();
    }), ui.button(words.reset, () => {
      [when, bias, chosen] = ["before", 0, null];
      model.set(when);
      slider.value = 0;
      draw();
    }, { class: "live-button live-reset" })),
    slider.element, h("div", {}, dots.root),
    h("div", { class: "live-numbers" }, h("div", {}, h("span", {}, words.accuracy), accuracy), h("div", {}, h("span", {}, words.loss), loss), h("div", {}, h("span", {}, words.slope), slope)),
    detail, h("div", {}, curves.root),
  );
  draw();
});
