// Lesson 04: the next token, step by step: greedy or drawn, with temperature and top-k; and loops.

Live.define("generation", (ui, body) => {
  const { h, words, say, number, percent, visible, example } = ui;
  const SHOW = 10, MANY = 20, LONGEST = 400; // bars; tokens at once; tokens in all
  let appended = [], result = example, greedy = true, running = false, turn = 0, seed = 123;

  const [label, text] = ui.field(words.prompt, { rows: 2, value: example.text, oninput: () => { appended = []; refresh(); } });
  const pick = ui.choice("pick", words.pick, [["greedy", words.greedy], ["random", words.random]], "greedy", (key) => {
    greedy = key === "greedy";
    sliders.hidden = greedy;
    refresh();
  });
  const temperature = ui.slider("temperature", words.temperature, { min: 0.1, max: 2, step: 0.1, value: 1, show: (x) => number(x, 1), oninput: () => refresh() });
  const topK = ui.slider("top-k", words.topK, { min: 1, max: 51, step: 1, value: 51, show: (k) => (k > 50 ? words.all : number(k)), oninput: () => refresh() });
  const sliders = h("div", { class: "live-controls", hidden: true }, temperature.element, topK.element);
  const written = h("div", { class: "live-text", tabindex: 0, role: "region", "aria-label": words.prompt });
  const count = ui.output("appended", { class: "live-note" });
  const loop = h("p", { class: "live-warning", hidden: true });
  const bars = h("div", { class: "live-bars", role: "group", "aria-label": words.bars });
  const one = ui.button(words.one, () => run(1)), many = ui.button(say(words.many, { n: MANY }), () => (running ? stop() : run(MANY)));
  const undo = ui.button(words.undo, () => { stop(); appended.pop(); refresh(); });
  const model = ui.modelBar(() => refresh());

  // Numbers from 0 to 1 that begin again with the same seed (mulberry32).
  function random() {
    seed = (seed + 0x6d2b79f5) | 0;
    let x = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    x = (x + Math.imul(x ^ (x >>> 7), 61 | x)) ^ x;
    return ((x ^ (x >>> 14)) >>> 0) / 4294967296;
  }

  // After how many tokens the text repeats itself: twice in a row, short ones three times; 0: it does not.
  function period(ids) {
    for (let p = 1; p <= 40; p++) {
      const same = (p < 5 ? 2 : 1) * p; // so many of the last tokens stand p tokens earlier as well
      if (ids.length >= same + p && ids.slice(-same).every((id, i) => id === ids[ids.length - same - p + i])) return p;
    }
    return 0;
  }

  function draw() {
    const ids = [...(result.prompt ?? []), ...appended];
    written.replaceChildren(text.value, ...(appended.length ? [h("mark", {}, result.continuation ?? "")] : []));
    written.scrollTop = written.scrollHeight;
    ui.set(count, appended.length, say(words.tokens, { n: appended.length }));
    const p = appended.length ? period(ids) : 0;
    loop.hidden = !p;
    loop.textContent = p ? say(words.loop, { n: p }) : "";
    const largest = Math.max(...result.bars.map((bar) => bar.probability));
    while (bars.children.length < result.bars.length) {
      const i = bars.children.length;
      bars.append(h("button", { type: "button", class: "live-bar", onclick: () => { stop(); append(result.bars[i]); refresh(); } }, h("span", {}), h("i", {}), h("span", {})));
    }
    [...bars.children].forEach((row, i) => {
      const { id, text: token, probability } = result.bars[i];
      row.children[0].textContent = visible(token);
      row.children[1].style.width = `${(probability / Math.max(largest, 0.02)) * 100}%`;
      row.children[2].textContent = percent(probability, 1);
      row.dataset.cut = probability === 0;
      row.dataset.drawn = greedy && id === result.drawn;
      row.setAttribute("aria-description", say(words.choose, { token: visible(token), probability: percent(probability, 1) }));
    });
    undo.disabled = !appended.length;
    many.textContent = running ? words.stop : say(words.many, { n: MANY });
  }

  function append(token) {
    if (appended.length >= LONGEST) return false;
    appended.push(token.id);
    ui.announce(say(words.said, { token: visible(token.text) }));
    return true;
  }

  async function next() {
    const mine = turn;
    const answer = await ui.engine.ask("next", { text: text.value, appended, greedy, temperature: temperature.value,
      topK: topK.value > 50 ? 0 : topK.value, random: random(), show: SHOW });
    if (mine !== turn) return false;
    result = answer;
    draw();
    return true;
  }

  const update = ui.latest(async () => { await next(); });
  function refresh() {
    turn += 1;
    running = false;
    if (text.value === example.text && !appended.length && greedy) { result = example; draw(); } else update();
  }

  async function run(steps) {
    stop();
    running = steps > 1;
    draw();
    try {
      for (let i = 0; i < steps && (steps === 1 || running); i++) {
        if (!(await next()) || !append({ id: result.drawn, text: result.drawnText })) break;
        if (!ui.still) await new Promise(requestAnimationFrame);
      }
      running = false;
      await next();
    } catch { running = false; draw(); /* the model bar says what is wrong */ }
  }

  function stop() {
    turn += 1;
    running = false;
  }

  body.append(
    h("div", { class: "live-field" }, label, text),
    pick.element, sliders,
    h("div", { class: "live-row" }, one, many, undo, ui.button(words.reset, () => {
      stop();
      [text.value, appended, greedy, seed] = [example.text, [], true, 123];
      [temperature.value, topK.value, sliders.hidden] = [1, 51, true];
      pick.set("greedy");
      refresh();
    }, { class: "live-button live-reset" })),
    written, loop,
    h("div", { class: "live-heading" }, words.bars), bars,
    h("div", { class: "live-foot" }, h("p", { class: "live-note" }, words.hint), count, model),
  );
  draw();
});
