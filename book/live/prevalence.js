// Lesson 01: what becomes of a filter's precision where spam is rarer than in balanced data.

Live.define("prevalence", (ui, body) => {
  const { h, words, say, number, percent, example } = ui, ACROSS = ui.root.clientWidth < 480 ? 25 : 50, DOWN = 1000 / ACROSS;
  const start = { share: 0.5, recall: example.recall, alarms: example.alarms };
  const slide = (part, label, options) => ui.slider(part, label, { step: 0.01, show: (x) => percent(x), oninput: () => { draw(); told(); }, ...options });
  const share = slide("share", words.share, { min: 0.01, max: 0.6, value: start.share });
  const recall = slide("recall", words.recall, { min: 0, max: 1, value: start.recall });
  const alarms = slide("alarms", words.alarms, { min: 0, max: 0.5, value: start.alarms });
  const [precision, accuracy, lazy] = ["precision", "accuracy", "lazy"].map((name) => ui.output(name));
  const canvas = h("canvas", { class: "live-squares", role: "img" });
  const kinds = ["caught", "missed", "falseAlarms", "rest"];
  const legend = kinds.map((kind) => ui.output(kind));
  const told = () => ui.announce(say(words.said, { precision: precision.textContent, accuracy: accuracy.textContent }));

  function draw() {
    const spam = Math.round(1000 * share.value), caught = Math.round(spam * recall.value), wrong = Math.round((1000 - spam) * alarms.value);
    const counts = [caught, spam - caught, wrong, 1000 - spam - wrong];
    counts.forEach((count, i) => ui.set(legend[i], count, number(count)));
    const right = caught + wrong ? caught / (caught + wrong) : NaN;
    ui.set(precision, right, Number.isNaN(right) ? "–" : percent(right));
    ui.set(accuracy, (caught + counts[3]) / 1000, percent((caught + counts[3]) / 1000));
    ui.set(lazy, 1 - spam / 1000, percent(1 - spam / 1000));
    canvas.setAttribute("aria-label", say(words.picture, { caught: counts[0], missed: counts[1], alarms: counts[2], rest: counts[3] }));

    const style = getComputedStyle(ui.root), colour = (name) => style.getPropertyValue(name);
    const size = 18, context = canvas.getContext("2d");
    [canvas.width, canvas.height] = [ACROSS * size, DOWN * size];
    const order = counts.flatMap((count, i) => Array(count).fill(i));
    order.forEach((kind, i) => {
      const x = Math.floor(i / DOWN) * size + 1.5, y = (i % DOWN) * size + 1.5, s = size - 3;
      context.globalAlpha = kind === 3 ? 0.3 : 1;
      context.fillStyle = context.strokeStyle = colour(kind < 2 ? "--spam" : "--ham");
      context.lineWidth = 2;
      if (kind === 0 || kind === 2) context.fillRect(x, y, s, s);
      else context.strokeRect(x + 1, y + 1, s - 2, s - 2);
      if (kind === 2) { // a false alarm has a cross
        context.strokeStyle = colour("--paper");
        context.beginPath();
        [[x + 4, y + 4, x + s - 4, y + s - 4], [x + s - 4, y + 4, x + 4, y + s - 4]].forEach(([a, b, c, d]) => { context.moveTo(a, b); context.lineTo(c, d); });
        context.stroke();
      }
    });
  }

  const set = (s) => { share.value = s; draw(); told(); };
  body.append(
    h("div", { class: "live-row" }, ui.button(words.balanced, () => set(0.5)), ui.button(words.real, () => set(0.14)),
      ui.button(words.reset, () => { [share.value, recall.value, alarms.value] = [start.share, start.recall, start.alarms]; draw(); }, { class: "live-button live-reset" })),
    h("div", { class: "live-controls" }, share.element, recall.element, alarms.element),
    h("div", { class: "live-heading" }, words.squares), canvas,
    h("div", { class: "live-keys" }, kinds.map((kind, i) => h("span", {}, h("i", { "data-kind": kind, "aria-hidden": "true" }), words[kind], legend[i]))),
    h("div", { class: "live-numbers" }, [["precision", precision], ["accuracy", accuracy], ["lazy", lazy]].map(([name, output]) => h("div", {}, h("span", {}, words[name]), output))),
  );
  draw();
  new MutationObserver(draw).observe(document.documentElement, { attributeFilter: ["data-theme"] });
});
