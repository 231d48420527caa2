// What all live figures share: finding them on the page, the model in its worker, and small helpers to
// draw with. A figure is defined by Live.define(name, draw) in a file of its own; its words stand in
// words_en.js, its stored example in example_NAME.js, which the build makes.

const Live = (() => {
  const figures = {}, examples = {};
  const folder = document.currentScript.src.replace(/[^/]*$/, "");
  let tables = {}, build = null, delivered = null;

  // ---- Drawing ----

  // An element with attributes and children; text is always text, never markup.
  function make(space, tag, attributes = {}, children = []) {
    const element = space ? document.createElementNS(space, tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value === undefined || value === null || value === false) continue;
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (name === "style") for (const [key, v] of Object.entries(value)) element.style.setProperty(key, v);
      else element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
    return element;
  }
  const h = (tag, attributes, ...children) => make(null, tag, attributes, children);
  const svg = (tag, attributes, ...children) => make("http://www.w3.org/2000/svg", tag, attributes, children);

  // ---- Words and numbers ----

  const language = document.documentElement.lang || "en";
  const plural = new Intl.PluralRules(language);
  const formats = {};
  const number = (value, digits = 0) => (formats[digits] ??= new Intl.NumberFormat(language, {
    minimumFractionDigits: digits, maximumFractionDigits: digits,
  })).format(value).replace(/^-/, "−").replace(/^−([0.,]+)$/, "$1");
  const percents = {};
  const percent = (value, digits = 0) => (percents[digits] ??= new Intl.NumberFormat(language, {
    style: "percent", minimumFractionDigits: digits, maximumFractionDigits: digits,
  })).format(value);

  // Fill a whole sentence: say("{n} tokens", { n: 3 }). A sentence in several forms, such as
  // { one: "{n} token", other: "{n} tokens" }, is chosen by the number n.
  function say(sentence, values = {}) {
    if (typeof sentence === "object") sentence = sentence[plural.select(values.n)] ?? sentence.other;
    return sentence.replace(/\{(\w+)\}/g, (_, name) => (typeof values[name] === "number" ? number(values[name]) : values[name]));
  }

  // What a token looks like: spaces, line ends and characters that cannot be seen have signs.
  const visible = (text) => text.replace(/ /g, "·").replace(/\n/g, "↵").replace(/\t/g, "⇥")
    .replace(/[\p{C}\p{Z}]/gu, "␣").replace(/^\p{M}/u, "◌$&") || "␣";

  // ---- The model ----

  const engine = { state: "idle", progress: 0, listeners: new Set() };
  let starting = null, abort = null, worker = null, asked = 0;
  const waiting = new Map();

  function change(state, progress = 0) {
    Object.assign(engine, { state, progress });
    engine.listeners.forEach((listener) => listener());
  }

  function call(ask, args, transfer = []) {
    return new Promise((resolve, reject) => {
      waiting.set(++asked, { resolve, reject });
      worker.postMessage({ id: asked, ask, args }, transfer);
    });
  }

  // What the browser keeps between pages and visits; where it keeps nothing, the weights come again.
  function store(mode, work) {
    return new Promise((resolve) => {
      try {
        const open = indexedDB.open("live-figures", 1);
        open.onupgradeneeded = () => open.result.createObjectStore("weights");
        open.onerror = open.onblocked = () => resolve(null);
        open.onsuccess = () => {
          const transaction = open.result.transaction("weights", mode);
          const request = work(transaction.objectStore("weights"));
          transaction.oncomplete = () => { open.result.close(); resolve(request.result ?? null); };
          transaction.onerror = transaction.onabort = () => { open.result.close(); resolve(null); };
        };
      } catch {
        resolve(null);
      }
    });
  }
  const recall = () => store("readonly", (weights) => weights.get(build.version));
  const keep = (content) => store("readwrite", (weights) => { weights.clear(); return weights.put(content, build.version); });

  // Bytes from lines of base64: browsers are slow at reading one long string.
  function fromBase64(lines) {
    const text = lines.join("");
    if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text).buffer;
    const characters = atob(text), bytes = new Uint8Array(characters.length); // in browsers before 2025
    for (let i = 0; i < bytes.length; i++) bytes[i] = characters.charCodeAt(i);
    return bytes.buffer;
  }

  // Over http: the engine with its header, and the bytes of the weights, unpacked as they come; this tells
  // how far it is and can be stopped. From a disk (file://) a page may load scripts and nothing else, so
  // there both are one script, weights.js, with the bytes in base64. They are not packed: a fifth more is
  // sooner read than unpacked.
  async function fetchWeights(signal) {
    const get = async (name) => {
      const response = await fetch(`${folder}${name}?v=${build.version}`, { signal });
      if (!response.ok) throw new Error(`${response.status}`);
      return response;
    };
    if (location.protocol.startsWith("http")) {
      const [engine, weights] = await Promise.all([get("engine.json"), get("weights.gz")]);
      let read = 0;
      const counted = new TransformStream({
        transform(part, next) {
          change("loading", Math.min(1, (read += part.length) / build.bytes));
          next.enqueue(part);
        },
      });
      const unpacked = weights.body.pipeThrough(counted).pipeThrough(new DecompressionStream("gzip"));
      return { ...(await engine.json()), data: await new Response(unpacked).arrayBuffer() };
    }
    return new Promise((resolve, reject) => {
      const script = h("script", { src: `${folder}weights.js?v=${build.version}` });
      delivered = (content) => resolve({ ...content, data: fromBase64(content.data) });
      script.onerror = () => reject(new Error(script.src));
      signal.addEventListener("abort", () => { script.remove(); reject(signal.reason); });
      document.head.append(script);
    });
  }

  async function start() {
    abort = new AbortController();
    change("loading");
    const kept = await recall(), content = kept ?? (await fetchWeights(abort.signal));
    abort.signal.throwIfAborted();
    const source = URL.createObjectURL(new Blob([content.engine], { type: "text/javascript" }));
    worker = new Worker(source);
    URL.revokeObjectURL(source);
    worker.onmessage = ({ data: { id, answer, error } }) => {
      const { resolve, reject } = waiting.get(id);
      waiting.delete(id);
      if (error === undefined) resolve(answer);
      else reject(new Error(error));
    };
    worker.onerror = (event) => {
      waiting.forEach(({ reject }) => reject(new Error(event.message)));
      waiting.clear();
    };
    await call("load", content);
    abort.signal.throwIfAborted();
    if (!kept) keep(content);
    change("ready");
  }

  // Ask the worker; the first question of all loads the model.
  engine.ask = (ask, args) => {
    starting ??= start().catch((error) => {
      worker?.terminate();
      starting = worker = null;
      if (error.name !== "AbortError") store("readwrite", (weights) => weights.clear()); // what is kept may be damaged
      change(error.name === "AbortError" ? "idle" : "failed");
      throw error;
    });
    return starting.then(() => call(ask, args));
  };
  engine.cancel = () => abort?.abort();

  // ---- Parts that figures have in common ----

  // Words, the answer to a question, and what a screen reader is told, of one figure.
  function helpers(name, root) {
    const words = { ...tables.common, ...tables[name] };
    const status = h("p", { class: "live-hidden", role: "status" });
    let later = null;
    const ui = {
      h, svg, say, number, percent, visible, words, engine, root, build, example: examples[name], status,
      id: (part) => `live-${name}-${part}`,
      still: matchMedia("(prefers-reduced-motion: reduce)").matches,

      // Tell a screen reader, when the reader has stopped typing or dragging.
      announce(text) {
        clearTimeout(later);
        later = setTimeout(() => { status.textContent = text; }, 600);
      },

      output: (part, attributes = {}, ...children) => h("output", { "data-name": part, ...attributes }, ...children),

      set(output, value, text) { // the number shown, for programs, and how it is written, for readers
        output.dataset.value = value;
        if (output.textContent !== text) output.textContent = text;
      },

      field(label, { rows = 2, value = "", oninput, placeholder }) {
        const area = h("textarea", { id: ui.id("text"), rows, spellcheck: "false", autocomplete: "off",
          autocapitalize: "off", placeholder, oninput });
        area.value = value;
        return [h("label", { for: ui.id("text"), class: "live-label" }, label), area];
      },

      button: (text, onclick, attributes = {}) => h("button", { type: "button", class: "live-button", onclick, ...attributes }, text),

      // A slider with its label, its value and its ends: show(value) writes a value.
      slider(part, label, { min, max, step, value, show, oninput }) {
        const output = ui.output(part, { for: ui.id(part) });
        const input = h("input", { type: "range", id: ui.id(part), min, max, step });
        input.value = value;
        const update = () => {
          ui.set(output, Number(input.value), show(Number(input.value)));
          input.setAttribute("aria-valuetext", output.textContent);
        };
        input.addEventListener("input", () => { update(); oninput?.(Number(input.value)); });
        update();
        return { input, output, update, get value() { return Number(input.value); },
          set value(number) { input.value = number; update(); },
          element: h("div", { class: "live-slider" }, h("label", { for: ui.id(part) }, label), output, input,
            h("div", { class: "live-ends", "aria-hidden": "true" }, [min, max].map((end) => h("span", {}, show(end))))) };
      },

      select(part, label, options, onchange) { // options: [[value, text], ...]
        const list = h("select", { id: ui.id(part), onchange }, options.map(([value, text]) => h("option", { value }, text)));
        return { list, element: h("div", { class: "live-choice" }, h("label", { for: ui.id(part) }, label), list) };
      },

      // A choice of a few, side by side: radio buttons.
      choice(part, label, options, value, onchange) {
        const inputs = options.map(([key]) => h("input", { type: "radio", name: ui.id(part), value: key, id: ui.id(`${part}-${key}`), onchange: () => onchange(key) }));
        const set = (key) => inputs.forEach((input) => { input.checked = input.value === String(key); });
        set(value);
        return { set, element: h("fieldset", { class: "live-radio" }, h("legend", {}, label),
          h("div", {}, options.map(([key, text], i) => h("span", {}, inputs[i], h("label", { for: ui.id(`${part}-${key}`) }, text))))) };
      },

      // Where the model stands: not loaded, loading, ready or failed.
      modelBar(retry) {
        const bar = h("progress", { max: 1, "aria-label": words.loadingLabel });
        const text = h("span", {});
        const cancel = ui.button(words.cancel, () => engine.cancel());
        const again = ui.button(words.tryAgain, () => retry());
        const element = h("div", { class: "live-model" }, text, bar, cancel, again);
        const size = number(build.bytes / 1e6);
        let former = engine.state;
        const update = () => {
          const { state, progress } = engine;
          element.dataset.state = state;
          bar.hidden = cancel.hidden = state !== "loading";
          again.hidden = state !== "failed";
          if (progress) bar.value = progress;
          else bar.removeAttribute("value");
          text.textContent = say(words.model[state], { model: build.model, size, percent: percent(progress) });
          if (state !== former) ui.announce(text.textContent);
          former = state;
        };
        engine.listeners.add(update);
        update();
        return element;
      },

      // Do the latest of many requests: while one runs, those in between are left out.
      latest(work) {
        let running = false, next = null;
        const run = async () => {
          if (running) return;
          running = true;
          while (next) {
            const args = next;
            next = null;
            try {
              await work(...args, () => next !== null);
            } catch (error) {
              if (engine.state === "ready") console.error(error); // else the model bar says what is wrong
            }
          }
          running = false;
        };
        return (...args) => { next = args; run(); };
      },

      // Arrow keys, Home and End move through a row of elements, of which Tab reaches one.
      rove(container, items, onfocus) {
        let current = 0;
        const go = (i, focus = true) => {
          const list = items();
          if (!list.length) return;
          current = Math.max(0, Math.min(list.length - 1, i));
          list.forEach((item, j) => { item.tabIndex = j === current ? 0 : -1; });
          if (focus) list[current].focus();
        };
        container.addEventListener("keydown", (event) => {
          const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
          const target = step ? current + step : { Home: 0, End: Infinity }[event.key];
          if (target === undefined) return;
          event.preventDefault();
          go(target);
        });
        const notice = (event) => {
          const i = items().indexOf(event.target.closest("[tabindex]"));
          if (i < 0) return;
          go(i, false);
          onfocus(i);
        };
        container.addEventListener("focusin", notice);
        container.addEventListener("pointerover", (event) => { if (event.pointerType === "mouse") notice(event); });
        container.addEventListener("click", notice);
        return { reset: () => go(0, false) };
      },
    };
    return ui;
  }

  function upgrade(root) {
    const name = root.dataset.live;
    if (!figures[name] || root.dataset.state) return;
    const ui = helpers(name, root);
    const body = h("div", { class: "live-body" });
    try {
      figures[name](ui, body);
    } catch (error) { // the picture stays
      console.error(error);
      return;
    }
    root.replaceChildren(body, ui.status);
    root.dataset.state = "live";
  }

  return {
    define(name, draw) { figures[name] = draw; },
    words(content) { tables = content; },
    example(name, content) { examples[name] = content; },
    build(content) { build = content; },
    receive(content) { delivered?.(content); },
    engine,
    start() { document.querySelectorAll("[data-live]").forEach(upgrade); },
  };
})();

document.addEventListener("DOMContentLoaded", Live.start);
