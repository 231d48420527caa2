// Lesson 08: fine-tuning as a film: the margin of every validation message, step by step.

Live.define("training", (ui, body) => {
  const { h, svg, words, say, number, percent, example } = ui;
  const plot = Live.plot(ui), { texts, labels, steps, margins } = example, N = labels.length, last = steps.length - 1;
  let frame = 0, followed = hardest(), timer = null;

  const sigmoid = (x) => 1 / (1 + Math.exp(-x));
  const accuracies = margins.map((row) => row.filter((m, i) => (m > 0) === (labels[i] === 1)).length / N);
  const losses = margins.map((row) => row.reduce((sum, m, i) => sum - Math.log(Math.max(1e-12, sigmoid(labels[i] ? m : -m))), 0) / N);
  const reach = Math.max(...margins.map((row) => Math.max(...row.map(Math.abs)))) * 1.05;

  function hardest() { // the message that is misread most at the end
    const wrong = example.margins.at(-1).map((m, i) => (labels[i] ? m : -m));
    return wrong.indexOf(Math.min(...wrong));
  }

  const slider = ui.slider("step", words.step, { min: 0, max: last, step: 1, value: 0, show: (i) => number(steps[i]), oninput: (i) => { pause(); frame = i; draw(); told(); } });
  const play = ui.button(words.play, () => (timer ? pause() : run()));
  const order = labels.map((_, i) => i).sort((a, b) => texts[a].localeCompare(texts[b]));
  const list = ui.select("follow", words.follow, order.map((i) => [i, texts[i].length > 60 ? `${texts[i].slice(0, 59)}…` : texts[i]]), () => { followed = Number(list.list.value); draw(); });
  list.list.value = followed;
  const [called, accuracy, loss, margin] = ["called", "accuracy", "loss", "margin"].map((name) => ui.output(name, { for: ui.id("step") }));
  const message = h("p", {});
  const told = () => ui.announce(say(words.said, { step: number(steps[frame]), accuracy: accuracy.textContent, loss: loss.textContent }));

  const dots = plot.drawing({ role: "img", "aria-label": words.dots }, (width) => {
    const room = 112, top = 22, base = top + room, radius = width < 480 ? 2.6 : 3.4, x = plot.scale([-reach, reach], [10, width - 10]);
    const points = margins[frame].map((m, i) => ({ x: m, i, wrong: (m > 0) !== (labels[i] === 1), followed: i === followed }));
    points.sort((a, b) => a.followed - b.followed); // the followed one on top of its pile
    const trail = margins.slice(0, frame + 1).map((row) => `${x(row[followed])},${base}`);
    return { height: top + 2 * room + 44, children: [
      svg("line", { x1: 10, x2: width - 10, y1: base, y2: base, class: "live-line" }),
      svg("line", { x1: x(0), x2: x(0), y1: 4, y2: base + room, class: "live-decision" }),
      plot.text(x(0) - 8, 12, words.calledHam, { "text-anchor": "end" }), plot.text(x(0) + 8, 12, words.calledSpam),
      svg("polyline", { points: trail.join(" "), class: "live-tangent" }),
      plot.pile(points.filter((p) => labels[p.i] === 1), x, base, true, radius, room - 12),
      plot.pile(points.filter((p) => labels[p.i] === 0), x, base, false, radius, room - 12),
      plot.text(10, top + 14, words.spam, { class: "live-strong live-halo" }), plot.text(10, base + room - 4, words.ham, { class: "live-strong live-halo" }),
      plot.ticks(-reach, reach, 6).map((v) => plot.text(x(v), base + room + 18, number(v), { "text-anchor": "middle" })),
      plot.text(width / 2, base + room + 36, words.margin, { "text-anchor": "middle", class: "live-axisname" }),
    ] };
  });
  for (const kind of ["click", "pointermove"]) {
    dots.root.addEventListener(kind, ({ target, buttons }) => {
      if (target.dataset?.i === undefined || (kind === "pointermove" && !buttons)) return;
      followed = Number(target.dataset.i);
      list.list.value = followed;
      draw();
    });
  }

  const curve = plot.drawing({ role: "img", "aria-label": words.curve }, (width) => {
    const left = 44, root = plot.scale([0, Math.sqrt(steps[last])], [left, width - 44]), highest = Math.max(1, ...losses);
    const x = (step) => root(Math.sqrt(step)); // roots give the first steps, where most happens, their room
    const ya = plot.scale([0, 1], [122, 26]), yl = plot.scale([0, highest], [122, 26]);
    const line = (values, y) => values.map((v, i) => `${x(steps[i])},${y(v)}`).join(" ");
    return { height: 168, children: [
      [0, 0.5, 1].map((v) => [svg("line", { x1: left, x2: width - 44, y1: ya(v), y2: ya(v), class: "live-grid" }), plot.text(left - 6, ya(v) + 4, percent(v), { "text-anchor": "end" }), plot.text(width - 38, ya(v) + 4, number(v * highest, 1))]),
      plot.text(left, 14, words.accuracy, { class: "live-strong" }),
      plot.text(width - 44, 14, words.loss, { "text-anchor": "end", class: "live-violet" }),
      svg("polyline", { points: line(accuracies, ya), class: "live-curve live-stairs" }),
      svg("polyline", { points: line(losses, yl), class: "live-curve live-dashed" }),
      svg("line", { x1: x(steps[frame]), x2: x(steps[frame]), y1: 20, y2: 122, class: "live-decision" }),
      svg("circle", { cx: x(steps[frame]), cy: ya(accuracies[frame]), r: 5, fill: "currentColor" }),
      svg("circle", { cx: x(steps[frame]), cy: yl(losses[frame]), r: 5, class: "live-plus" }),
      svg("line", { x1: left, x2: width - 44, y1: 122, y2: 122, class: "live-line" }),
      [0, 12, 60, 195, 390, 585, 780, 975].filter((v) => v <= steps[last] && (width > 480 || v % 390 === 0 || v === 60)).map((v) => [
        svg("line", { x1: x(v), x2: x(v), y1: 122, y2: 126, class: "live-line" }), plot.text(x(v), 139, number(v), { "text-anchor": "middle" })]),
      plot.text((left + width - 44) / 2, 157, words.stepAxis, { "text-anchor": "middle", class: "live-axisname" }),
    ] };
  });

  function draw() {
    const count = margins[frame].filter((m) => m > 0).length;
    ui.set(called, count, number(count));
    ui.set(accuracy, accuracies[frame], percent(accuracies[frame], 1));
    ui.set(loss, losses[frame], number(losses[frame], 3));
    ui.set(margin, margins[frame][followed], number(margins[frame][followed], 2));
    message.textContent = say(labels[followed] ? words.followedSpam : words.followedHam, { text: texts[followed] });
    play.textContent = timer ? words.pause : words.play;
    dots.update();
    curve.update();
  }

  function run() {
    if (frame === last) frame = 0;
    timer = setInterval(() => {
      frame += 1;
      slider.value = frame;
      if (frame >= last || !ui.root.isConnected) { pause(); told(); }
      draw();
    }, ui.still ? 600 : 140);
    draw();
  }

  function pause() {
    clearInterval(timer);
    timer = null;
    play.textContent = words.play;
  }

  body.append(
    h("div", { class: "live-row" }, play, ui.button(words.reset, () => {
      pause();
      [frame, followed] = [0, hardest()];
      slider.value = 0;
      list.list.value = followed;
      draw();
    }, { class: "live-button live-reset" })),
    slider.element, h("div", {}, dots.root), h("p", { class: "live-note" }, words.key), list.element, message,
    h("div", { class: "live-numbers" }, [["called", called], ["accuracy", accuracy], ["loss", loss], ["margin_", margin]].map(([name, output]) => h("div", {}, h("span", {}, say(words[name], { all: number(N) })), output))),
    h("div", {}, curve.root),
  );
  draw();
});
