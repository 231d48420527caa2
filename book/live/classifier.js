// The title page: a message, its probability of spam before and after fine-tuning, and what each token did.

Live.define("classifier", (ui, body) => {
  const { h, words, say, percent, example, build } = ui;
  const { threshold, max_length: max } = build.settings;
  let shown = example.messages[0], alive = 0;

  const [label, text] = ui.field(words.yourMessage, {
    rows: 3, value: shown.text, placeholder: words.placeholder, oninput: () => read(text.value),
  });
  const meters = ["before", "after"].map((when) => meter(when));
  const scales = h("div", { class: "live-meters" });
  const count = h("p", { class: "live-note" });
  const tokens = h("div", { class: "live-tokens", role: "group", "aria-labelledby": ui.id("tokens") });
  const detail = h("p", { class: "live-note live-detail", "aria-live": "polite" });
  const model = ui.modelBar(() => read(text.value));
  const roving = ui.rove(tokens, () => [...tokens.children], explain);

  // One line of the scale: a track from 0 to 1, the threshold, a mark, the number and the verdict.
  function meter(when) {
    const mark = h("span", { class: "live-mark" });
    const fill = h("span", { class: "live-fill" });
    const value = ui.output(when === "after" ? "spam" : "spam-before", { for: ui.id("text") });
    const verdict = h("span", { class: "live-verdict" });
    const element = h("div", { class: `live-meter live-${when}` },
      h("span", { class: "live-when" }, words[when]),
      h("span", { class: "live-track", "aria-hidden": "true" }, fill,
        h("span", { class: "live-threshold", style: { left: `${threshold * 100}%` } }), mark),
      h("span", { class: "live-result" }, value, verdict));
    return { element, show(probability) {
      const spam = probability >= threshold;
      mark.style.left = fill.style.width = `${probability * 100}%`;
      ui.set(value, probability, percent(probability, probability > 0.995 || probability < 0.005 ? 1 : 0));
      verdict.textContent = spam ? words.spam : words.ham;
      element.dataset.spam = spam;
    } };
  }

  function show(result) {
    shown = result;
    meters[0].show(result.spamBefore);
    meters[1].show(result.spam);
    count.textContent = result.total === 0 ? say(words.empty, { max })
      : say(result.total > max ? words.cut : words.count, { n: result.total, max });
    const strongest = Math.max(0.25, ...(result.effects ?? []).map((effect) => Math.abs(effect ?? 0)));
    if (tokens.children.length !== result.tokens.length || [...tokens.children].some((chip, i) => chip.dataset.id !== String(result.tokens[i].id))) {
      tokens.replaceChildren(...result.tokens.map((token) =>
        h("button", { type: "button", class: "live-token", tabindex: -1, "data-id": token.id }, ui.visible(token.text))));
      roving.reset();
    }
    [...tokens.children].forEach((chip, i) => {
      const effect = result.effects?.[i];
      const known = effect !== undefined && effect !== null;
      chip.classList.toggle("live-pending", !known);
      chip.style.setProperty("--strength", known ? Math.min(1, Math.abs(effect) / strongest) : 0);
      chip.dataset.towards = !known ? "" : effect > 0 ? "spam" : "ham";
      chip.setAttribute("aria-label", known
        ? say(words.effect, { token: chip.textContent, effect: `${effect > 0 ? "+" : ""}${ui.number(effect, 2)}` }) : chip.textContent);
    });
    if (!tokens.contains(document.activeElement)) detail.textContent = words.hint;
  }

  function explain(i) {
    const effect = shown.effects?.[i];
    if (effect === undefined || effect === null) return;
    const odds = Math.log(shown.spam / (1 - shown.spam)) - effect;
    detail.textContent = say(words.without, {
      token: ui.visible(shown.tokens[i].text), without: percent(1 / (1 + Math.exp(-odds)), 1), with: percent(shown.spam, 1),
    });
  }

  // Classify; then leave out one token at a time, from the last to the first (see worker.js).
  const classify = ui.latest(async (message, turn, overtaken) => {
    const answer = await ui.engine.ask("classify", message).catch((error) => { busy(false); throw error; });
    if (turn !== alive) return;
    busy(false);
    const result = { ...answer, text: message };
    result.effects = Array(result.tokens.length).fill(null);
    show(result);
    ui.announce(say(words.said, {
      before: percent(result.spamBefore), after: percent(result.spam), label: result.spam >= threshold ? words.spam : words.ham,
    }));
    detail.textContent = words.working;
    const whole = result.after[1] - result.after[0];
    let drawn = performance.now();
    for (let i = result.tokens.length - 1; i >= 0; i--) {
      if (overtaken() || turn !== alive) return;
      result.effects[i] = whole - await ui.engine.ask("without", { ids: result.ids, i });
      if (performance.now() - drawn > 120) {
        if (turn !== alive) return;
        show(result);
        detail.textContent = words.working;
        drawn = performance.now();
      }
    }
    if (turn !== alive) return;
    show(result);
    if (tokens.contains(document.activeElement)) explain([...tokens.children].indexOf(document.activeElement));
  });

  function read(message) {
    const stored = example.messages.find((known) => known.text === message);
    alive += 1;
    busy(!stored);
    if (stored) show(stored);
    else classify(message, alive);
  }

  function busy(whether) { // the numbers shown are those of another text
    scales.setAttribute("aria-busy", whether);
  }

  function choose(i) {
    text.value = example.messages[i].text;
    read(text.value);
  }

  body.append(
    h("div", { class: "live-field" }, label, text),
    h("div", { class: "live-row", role: "group", "aria-label": words.examples },
      example.messages.map((_, i) => ui.button(words.exampleNames[i], () => choose(i))),
      ui.button(words.reset, () => choose(0), { class: "live-button live-reset" })),
    scales,
    h("div", { class: "live-heading", id: ui.id("tokens") }, words.tokens,
      h("span", { class: "live-legend", "aria-hidden": "true" },
        h("span", {}, h("i", { "data-towards": "ham" }), words.legendHam),
        h("span", {}, h("i", { "data-towards": "spam" }), words.legendSpam))),
    tokens, h("p", { class: "live-note" }, words.strength), detail,
    h("div", { class: "live-foot" }, count, model),
  );
  scales.append(
    h("div", { class: "live-heading" }, words.probability),
    ...meters.map((each) => each.element),
    h("div", { class: "live-scale", "aria-hidden": "true" }, h("span", {}), h("span", {},
      [0, 1].filter((at) => Math.abs(at - threshold) > 0.2).map((at) => h("span", { class: `live-end-${at}`, style: { left: `${at * 100}%` } }, percent(at))),
      h("span", { class: "live-at", style: { left: `${threshold * 100}%` } }, say(words.threshold, { value: ui.number(threshold, 2) }))), h("span", {})),
  );
  show(shown);
});
