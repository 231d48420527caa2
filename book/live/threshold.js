// Lesson 09: a threshold, the real share of spam, and what mistakes cost: would you switch this filter on?

Live.define("threshold", (ui, body) => {
  const { h, svg, words, say, number, percent, example, build } = ui;
  const plot = Live.plot(ui), { spam, ham, texts } = example;
  const start = { threshold: build.settings.threshold, share: 1 / 7, cost: 10 };
  let own = null, turn = 0;

  const above = (list, t) => list.filter((p) => p >= t).length / list.length;
  const told = () => ui.announce(say(words.said, { precision: precision.textContent, recall: recall.textContent, cost: cost.textContent }));
  const slide = (part, label, options) => ui.slider(part, label, { ...options, oninput: () => { draw(); told(); } });
  const threshold = slide("threshold", words.threshold, { min: 0.01, max: 0.99, step: 0.01, value: start.threshold, show: (t) => number(t, 2) });
  const share = slide("share", words.share, { min: 0.01, max: 0.6, step: 0.01, value: start.share, show: (s) => percent(s) });
  const price = slide("price", words.price, { min: 1, max: 100, step: 1, value: start.cost, show: (c) => say(words.times, { n: c }) });
  const [label, text] = ui.field(words.own, { rows: 2, placeholder: words.ownPlaceholder, oninput: () => read() });
  const mine = ui.output("spam", { for: ui.id("text"), class: "live-last" });
  const [precision, recall, cost] = ["precision", "recall", "cost"].map((name) => ui.output(name));
  const cells = ["caught", "lost", "missed", "passed"].map((name) => ui.output(name));
  const verdict = h("p", { class: "live-note" });
  const detail = h("p", { class: "live-note live-detail", "aria-live": "polite" }, words.hint);
  const model = ui.modelBar(() => read());

  const dots = plot.drawing({ role: "img", "aria-label": words.dots }, (width) => {
    const room = 84, base = room + 14, radius = width < 480 ? 2.5 : 3.5, x = plot.scale([0, 1], [14, width - 14]), t = threshold.value;
    const points = (list, first, right) => list.map((p, i) => ({ x: p, i: first + i, wrong: (p >= t) !== right }));
    // The line goes from side to side, and may be anywhere: the names of the rows stand above and below its ends.
    return { height: 2 * room + 64, children: [
      plot.text(4, 12, words.spamRow), plot.text(4, base + room + 11, words.hamRow),
      svg("line", { x1: x(0), x2: x(1), y1: base, y2: base, class: "live-line" }),
      plot.pile(points(spam, 0, true), x, base, true, radius, room - 12), plot.pile(points(ham, spam.length, false), x, base, false, radius, room - 12),
      svg("line", { x1: x(t), x2: x(t), y1: 18, y2: base + room - 3, class: "live-decision" }),
      own !== null && [svg("path", { d: `M${x(own)} ${base - 12} l9 12 l-9 12 l-9 -12 z`, fill: "currentColor" }), plot.text(x(own), base - 17, words.mark, { "text-anchor": own > 0.85 ? "end" : own < 0.15 ? "start" : "middle", class: "live-strong live-halo" })],
      plot.ticks(0, 1, 5).map((v) => plot.text(x(v), base + room + 28, percent(v), { "text-anchor": "middle" })),
      plot.text(width / 2, base + room + 46, words.probability, { "text-anchor": "middle", class: "live-axisname" }),
    ] };
  });
  for (const kind of ["pointermove", "pointerdown"]) {
    dots.root.addEventListener(kind, ({ target }) => {
      const i = target.dataset?.i;
      if (i !== undefined) detail.textContent = say(i < spam.length ? words.isSpam : words.isHam, { p: percent([...spam, ...ham][i], 1), text: texts[i] });
    });
  }

  const costs = plot.drawing({ role: "img", "aria-label": words.costs }, (width) => {
    const { filter, nothing } = expected(), left = Math.min(150, width * 0.4), x = plot.scale([0, Math.max(filter, nothing, 1)], [left, width - 60]);
    return { height: 70, children: [[words.thisFilter, filter, "live-plus"], [words.nothing, nothing, "live-minus"]].map(([name, value, kind], i) => [
      plot.text(left - 8, 22 + i * 32, name, { "text-anchor": "end" }),
      svg("rect", { x: left, y: 8 + i * 32, width: Math.max(1, x(value) - left), height: 20, rx: 3, class: kind }),
      plot.text(x(value) + 6, 22 + i * 32, number(value), { class: "live-strong" }),
    ]) };
  });

  // Of a thousand messages, at the real share of spam.
  function expected() {
    const t = threshold.value, s = 1000 * share.value;
    const caught = s * above(spam, t), lost = (1000 - s) * above(ham, t);
    return { caught, missed: s - caught, lost, passed: 1000 - s - lost, filter: s - caught + price.value * lost, nothing: s };
  }

  function draw() {
    const { caught, missed, lost, passed, filter, nothing } = expected();
    [caught, lost, missed, passed].forEach((value, i) => ui.set(cells[i], value, number(value)));
    const right = caught + lost ? caught / (caught + lost) : NaN;
    ui.set(precision, right, Number.isNaN(right) ? words.undefined_ : percent(right));
    ui.set(recall, caught / (caught + missed), percent(caught / (caught + missed)));
    ui.set(cost, filter, number(filter));
    verdict.textContent = say(filter < nothing ? words.worth : words.notWorth, { filter: number(filter), nothing: number(nothing) });
    dots.update();
    costs.update();
  }

  const classify = ui.latest(async (message, now) => {
    const result = await ui.engine.ask("classify", message);
    if (now !== turn) return;
    own = result.spam;
    ui.set(mine, own, say(words.mine, { p: percent(own, 1) }));
    ui.announce(mine.textContent);
    dots.update();
  });

  function read() {
    turn += 1;
    if (text.value) return classify(text.value, turn);
    own = null;
    mine.textContent = "";
    delete mine.dataset.value;
    return dots.update();
  }

  body.append(
    h("div", { class: "live-controls" }, threshold.element, share.element, price.element),
    h("div", {}, dots.root), detail,
    h("div", { class: "live-numbers" }, h("div", {}, h("span", {}, words.precision), precision), h("div", {}, h("span", {}, words.recall), recall), h("div", {}, h("span", {}, words.cost), cost)),
    h("div", { class: "live-halves" },
      h("table", { class: "live-table" }, h("caption", {}, words.matrix),
        h("thead", {}, h("tr", {}, h("td", {}), h("th", { scope: "col" }, words.called), h("th", { scope: "col" }, words.notCalled))),
        h("tbody", {}, h("tr", {}, h("th", { scope: "row" }, words.isSpamRow), h("td", {}, cells[0]), h("td", { "data-bad": true }, cells[2])),
          h("tr", {}, h("th", { scope: "row" }, words.isHamRow), h("td", { "data-bad": true }, cells[1]), h("td", {}, cells[3])))),
      h("div", {}, h("div", { class: "live-heading" }, words.costs), h("div", {}, costs.root), verdict)),
    h("div", { class: "live-field" }, label, text, mine),
    h("div", { class: "live-row" }, ui.button(words.reset, () => {
      [threshold.value, share.value, price.value, text.value] = [start.threshold, start.share, start.cost, ""];
      detail.textContent = words.hint;
      read();
      draw();
    }, { class: "live-button live-reset" })),
    h("div", { class: "live-foot" }, model),
  );
  draw();
});
