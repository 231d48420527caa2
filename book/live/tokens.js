// Lesson 01: a text as tokens and IDs, and as a row of a batch with its padding.

Live.define("tokens", (ui, body) => {
  const { h, words, say, number, visible, example, build } = ui, max = build.settings.max_length;
  let shown = example.texts[0], turn = 0;

  const [label, text] = ui.field(words.text, { rows: 3, value: shown.text, placeholder: words.placeholder, oninput: () => read() });
  const chips = h("div", { class: "live-tokens live-ids", role: "group", "aria-label": words.tokens });
  const detail = h("p", { class: "live-note live-detail", "aria-live": "polite" }, words.hint);
  const row = h("div", { class: "live-batch", role: "img" });
  const outputs = Object.fromEntries(["count", "characters", "bytes", "ratio"].map((name) => [name, ui.output(name, { for: ui.id("text") })]));
  const rowNote = h("p", { class: "live-note" });
  const model = ui.modelBar(() => read());
  const roving = ui.rove(chips, () => [...chips.children], (i) => {
    const { id, text: token } = shown.tokens[i];
    detail.textContent = say(words.piece, { i: i + 1, token: visible(token), id: String(id), bytes: shown.bytes[i] });
  });

  function show(result) {
    shown = result;
    const { tokens } = result, n = tokens.length, characters = [...result.text].length;
    chips.replaceChildren(...tokens.slice(0, 600).map(({ id, text: token }, i) =>
      h("button", { type: "button", class: "live-token", tabindex: -1, "data-tone": i % 4, "aria-description": say(words.chip, { token: visible(token), id: String(id) }) }, visible(token), h("small", {}, id))));
    roving.reset();
    row.replaceChildren(...Array.from({ length: max }, (_, i) => h("i", { "data-tone": i < n ? i % 4 : undefined })));
    ui.set(outputs.count, n, number(n));
    ui.set(outputs.characters, characters, number(characters));
    const bytes = result.bytes.reduce((a, b) => a + b, 0);
    ui.set(outputs.bytes, bytes, number(bytes));
    ui.set(outputs.ratio, n ? characters / n : 0, n ? number(characters / n, 1) : "–");
    const sentence = say(words.rowLabel, { n: Math.min(n, max), rest: Math.max(0, max - n) });
    row.setAttribute("aria-label", sentence);
    rowNote.textContent = n > max ? say(words.cut, { n: n - max, max }) : sentence;
  }

  const encode = ui.latest(async (content, now) => {
    const result = await ui.engine.ask("tokens", content);
    if (now !== turn) return;
    show({ ...result, text: content });
    ui.announce(say(words.said, { n: result.tokens.length }));
  });

  function read() {
    turn += 1;
    const stored = example.texts.find((known) => known.text === text.value);
    if (stored) show(stored);
    else encode(text.value, turn);
  }

  const choose = (i) => { text.value = example.texts[i].text; detail.textContent = words.hint; read(); };
  body.append(
    h("div", { class: "live-field" }, label, text),
    h("div", { class: "live-row", role: "group", "aria-label": words.examples }, example.texts.map((_, i) => ui.button(words.exampleNames[i], () => choose(i))),
      ui.button(words.reset, () => choose(0), { class: "live-button live-reset" })),
    h("div", { class: "live-heading" }, words.tokens), chips, detail,
    h("div", { class: "live-heading" }, say(words.row, { max })), row, rowNote,
    h("div", { class: "live-numbers" }, ["count", "characters", "bytes", "ratio"].map((name) => h("div", {}, h("span", {}, words[name]), outputs[name]))),
    h("div", { class: "live-foot" }, model),
  );
  show(shown);
});
