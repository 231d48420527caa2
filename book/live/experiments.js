// Lesson 10: one choice changed at a time, test accuracy with its interval, by question.

Live.define("experiments", (ui, body) => {
  const { h, words, say, number, percent, example } = ui;
  const { questions, book } = example, all = [...new Set(Object.values(questions).flat())], names = Object.keys(example.data);
  const first = names.includes("sample") ? "sample" : names[0];
  let data = first, question = "all", chosen = book;
  const rows = () => example.data[data].rows;
  const mean = (runs) => runs.reduce((a, b) => a + b) / runs.length;
  const points = (v) => number(100 * v, 1);
  const nameOf = (key) => example.names[key] ?? key;

  const messages = names.length > 1 && ui.choice("data", words.data, names.map((key) => [key, words.collections[key]]), data, (key) => { data = key; draw(); });
  const select = ui.select("question", words.question, Object.entries(words.questions), () => {
    question = select.list.value;
    draw();
  });
  const plotted = h("div", { class: "live-rows", role: "group", "aria-label": words.plot });
  const axis = h("div", { class: "live-experiment live-axisrow" });
  const detail = h("p", { "aria-live": "polite" }), interval = h("p", { class: "live-note" }), missing = h("p", { class: "live-note" });
  const asked = () => (question === "all" ? all : questions[question]);
  const shown = () => asked().filter((key) => rows()[key]).sort((a, b) => mean(rows()[b].test) - mean(rows()[a].test));
  const roving = ui.rove(plotted, () => [...plotted.children], (i) => { chosen = shown()[i]; mark(); });
  const low = 0.4, high = 1, at = (v) => `${((Math.max(low, Math.min(high, v)) - low) / (high - low)) * 100}%`;

  function draw() {
    plotted.replaceChildren(...shown().map((key) => {
      const { test, failed, interval: [from, to] } = rows()[key], p = mean(test);
      return h("button", { type: "button", tabindex: -1, class: "live-experiment", "data-key": key },
      h("span", {}, nameOf(key)),
      h("span", { class: "live-lane" }, rows()[book] && h("i", { class: "live-reference", style: { left: at(mean(rows()[book].test)) } }),
        h("i", { class: "live-interval", style: { left: at(from), right: `calc(100% - ${at(to)})` } }),
        ...(test.length > 1 ? test.map((run, i) => h("i", { class: failed[i] ? "live-failed" : "live-single", style: { left: at(run) } })) : []),
        h("i", { class: "live-point", style: { left: at(p) } })),
      h("span", {}, percent(p, 1), " ",
        h("span", { class: "live-hidden" }, say(words.dot, { low: percent(from, 1), high: percent(to, 1) }))));
    }));
    const open = asked().filter((key) => !rows()[key]);
    missing.hidden = !open.length;
    missing.textContent = say(words.missing, { names: open.map(nameOf).join("; ") });
    interval.textContent = say(words.interval, { n: example.data[data].messages, book: nameOf(book) });
    roving.reset();
    mark();
  }

  function mark() {
    const list = shown();
    if (!list.includes(chosen)) chosen = list[0];
    [...plotted.children].forEach((row) => { row.dataset.chosen = row.dataset.key === chosen; });
    const { test, failed, parameters, difference, clear } = rows()[chosen], lost = failed.filter(Boolean).length;
    detail.textContent = [
      say(words.detail, { name: nameOf(chosen), accuracy: percent(mean(test), 1), n: test.length, parameters: number(parameters) }),
      lost && say(words.failed, { n: lost }),
      difference && say(clear ? words.clear : words.open, { difference: points(difference[0]), low: points(difference[1]), high: points(difference[2]) }),
    ].filter(Boolean).join(" ");
  }

  axis.append(h("span", {}), h("span", { class: "live-lane", "aria-hidden": "true" }, [0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1].map((v) => h("span", { style: { left: at(v) } }, percent(v)))), h("span", {}));

  function reset() {
    [data, question, chosen] = [first, "all", book];
    select.list.value = "all";
    if (messages) messages.set(first);
    draw();
  }

  body.append(
    h("div", { class: "live-row" }, select.element, messages && messages.element, ui.button(words.reset, reset, { class: "live-button live-reset" })),
    plotted, axis, detail, interval, h("p", { class: "live-note" }, words.hint), missing,
  );
  draw();
});
