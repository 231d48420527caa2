// Lesson 10: one choice changed at a time, test accuracy with its interval, by question.

Live.define("experiments", (ui, body) => {
  const { h, svg, words, say, number, percent, example } = ui;
  const plot = Live.plot(ui), { rows, questions, messages, book } = example;
  let question = "all", chosen = book;
  const mean = (runs) => runs.reduce((a, b) => a + b) / runs.length;
  const nameOf = (key) => words.names[key] ?? key;

  // The interval of Wilson for a share p of n, 95 %.
  function wilson(p, n, z = 1.96) {
    const middle = (p + (z * z) / (2 * n)) / (1 + (z * z) / n);
    const half = (z / (1 + (z * z) / n)) * Math.sqrt((p * (1 - p)) / n + (z * z) / (4 * n * n));
    return [middle - half, middle + half];
  }

  const select = ui.select("question", words.question, Object.keys(words.questions).filter((key) => key === "all" || questions[key]?.some((name) => rows[name])).map((key) => [key, words.questions[key]]), () => {
    question = select.list.value;
    draw();
  });
  const plotted = h("div", { class: "live-rows", role: "group", "aria-label": words.plot });
  const axis = h("div", {});
  const detail = h("p", { "aria-live": "polite" });
  const shown = () => Object.keys(rows).filter((key) => question === "all" || questions[question].includes(key)).sort((a, b) => mean(rows[b].test) - mean(rows[a].test));
  const roving = ui.rove(plotted, () => [...plotted.children], (i) => { chosen = shown()[i]; mark(); });
  const low = 0.4, high = 1, at = (v) => `${((Math.max(low, Math.min(high, v)) - low) / (high - low)) * 100}%`;

  function draw() {
    const list = shown();
    plotted.replaceChildren(...list.map((key) => {
      const { test } = rows[key], p = mean(test), [from, to] = wilson(p, messages);
      return h("button", { type: "button", tabindex: -1, class: "live-experiment", "data-key": key,
        "aria-label": say(words.dot, { name: nameOf(key), accuracy: percent(p, 1), low: percent(from, 1), high: percent(to, 1) }) },
      h("span", {}, nameOf(key)),
      h("span", { class: "live-lane" }, h("i", { class: "live-reference", style: { left: at(mean(rows[book].test)) } }),
        h("i", { class: "live-interval", style: { left: at(from), right: `calc(100% - ${at(to)})` } }),
        ...(test.length > 1 ? test.map((run) => h("i", { class: "live-single", style: { left: at(run) } })) : []),
        h("i", { class: "live-point", style: { left: at(p) } })),
      h("span", {}, percent(p, 1)));
    }));
    roving.reset();
    mark();
  }

  function mark() {
    const list = shown();
    if (!list.includes(chosen)) chosen = list[0];
    [...plotted.children].forEach((row) => { row.dataset.chosen = row.dataset.key === chosen; });
    const { test, parameters } = rows[chosen];
    detail.textContent = say(words.detail, { name: nameOf(chosen), accuracy: percent(mean(test), 1), n: test.length, parameters: number(parameters) });
  }

  axis.className = "live-experiment live-axisrow";
  axis.append(h("span", {}), h("span", { class: "live-lane", "aria-hidden": "true" }, [0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1].map((v) => h("span", { style: { left: at(v) } }, percent(v)))), h("span", {}));

  body.append(
    h("div", { class: "live-row" }, select.element, ui.button(words.reset, () => { [question, chosen] = ["all", book]; select.list.value = "all"; draw(); }, { class: "live-button live-reset" })),
    plotted, axis, detail,
    h("p", { class: "live-note" }, say(words.interval, { n: messages })), h("p", { class: "live-note" }, words.hint),
  );
  draw();
});
