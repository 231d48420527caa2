// Small parts of plots that several figures share.

Live.plot = (ui) => {
  const { svg, number } = ui;

  const scale = ([a, b], [c, d]) => (x) => c + ((x - a) / (b - a)) * (d - c);

  // Round values between two ends, about n of them.
  function ticks(a, b, n = 5) {
    const rough = (b - a) / n, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
    return Array.from({ length: Math.floor(b / step + 1e-9) - Math.ceil(a / step - 1e-9) + 1 }, (_, i) => (Math.ceil(a / step - 1e-9) + i) * step);
  }

  // A drawing as wide as its figure: draw(width) gives its height and children, again at each new width.
  function drawing(attributes, draw) {
    const root = svg("svg", { class: "live-plot", ...attributes });
    let width = 0;
    const update = () => {
      width = root.parentElement?.clientWidth || width || 600;
      const { height, children } = draw(width);
      root.setAttribute("viewBox", `0 0 ${width} ${height}`);
      root.setAttribute("width", width);
      root.setAttribute("height", height);
      root.replaceChildren(...children.flat(Infinity).filter(Boolean));
    };
    queueMicrotask(() => {
      update();
      new ResizeObserver(() => { if (root.parentElement && root.parentElement.clientWidth !== width) update(); }).observe(root.parentElement);
    });
    return { root, update };
  }

  const text = (x, y, content, attributes = {}) => svg("text", { x, y, ...attributes }, content);

  function xAxis(x, [a, b], y, label, format = (v) => number(v), n = 5) {
    return [
      svg("line", { x1: x(a), x2: x(b), y1: y, y2: y, class: "live-line" }),
      ticks(a, b, n).map((v) => [svg("line", { x1: x(v), x2: x(v), y1: y, y2: y + 4, class: "live-line" }),
        text(x(v), y + 17, format(v), { "text-anchor": "middle" })]),
      label && text((x(a) + x(b)) / 2, y + 35, label, { "text-anchor": "middle", class: "live-axisname" }),
    ];
  }

  // Points of one class, piled up where they are close: up (spam, filled) or down (not spam, hollow).
  function pile(points, x, base, up, radius, room) {
    const columns = new Map();
    const step = Math.min(radius * 2 + 0.5, room / Math.max(1, tallest(points, x, radius)));
    return points.map((point) => {
      const column = Math.round(x(point.x) / (radius * 2)), level = columns.get(column) ?? 0;
      columns.set(column, level + 1);
      const y = base + (up ? -1 : 1) * (radius + 2 + level * step);
      return svg("circle", { cx: column * radius * 2, cy: y, r: radius, class: `live-dot ${up ? "live-dot-spam" : "live-dot-ham"}`, "data-i": point.i, "data-wrong": point.wrong || undefined, "data-followed": point.followed || undefined });
    });
  }
  function tallest(points, x, radius) {
    const counts = new Map();
    points.forEach((point) => { const c = Math.round(x(point.x) / (radius * 2)); counts.set(c, (counts.get(c) ?? 0) + 1); });
    return Math.max(0, ...counts.values());
  }

  return { scale, ticks, drawing, text, xAxis, pile };
};
