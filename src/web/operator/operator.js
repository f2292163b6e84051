// Draws /stats.json: asks every two seconds, keeps five minutes, estimates quantiles from histogram buckets.
// Counters only ever rise, so every rate is a difference; a restart (another `started_ms`) begins anew.
"use strict";

const ASK_EVERY_MS = 2000;
const KEPT_MS = 5 * 60 * 1000;
// Rates and quantiles are taken over so long: short enough to be live, long enough not to jump.
const WINDOW_MS = 10 * 1000;

const samples = [];
let failedSince = 0;

// ── numbers ──────────────────────────────────────────────────────────────────────────────────────────────────────────

const at = (sample, path) => path.split(".").reduce((value, key) => value?.[key], sample);

// The newest sample at least a window older than samples[index], or the oldest there is.
function before(index) {
  const end = samples[index].time_ms - WINDOW_MS;
  let i = index - 1;
  while (i > 0 && samples[i].time_ms > end) i -= 1;
  return samples[i];
}

function rate(path, index) {
  const [now, then] = [samples[index], before(index)];
  if (!then) return null;
  return Math.max(0, at(now, path) - at(then, path)) / ((now.monotonic_us - then.monotonic_us) / 1e6);
}

// Of all counters of a group together; one that was 0 so far is not there.
function rateOfAll(path, index) {
  const then = before(index);
  if (!then) return null;
  const sum = (sample) => Object.values(sample[path]).reduce((all, n) => all + n, 0);
  return Math.max(0, sum(samples[index]) - sum(then)) / ((samples[index].monotonic_us - then.monotonic_us) / 1e6);
}

// The value below which a share `q` of what was observed in the window lies, straight lines within a bucket.
function quantile(path, q, index) {
  const [now, then] = [at(samples[index], path), at(before(index), path)];
  if (!then) return null;
  const counts = now.counts.map((count, i) => count - then.counts[i]);
  const all = counts.reduce((sum, count) => sum + count, 0);
  if (all <= 0) return null;
  let left = q * all;
  for (let i = 0; i < counts.length; i += 1) {
    if (counts[i] > 0 && left <= counts[i]) {
      const low = i === 0 ? 0 : now.bounds[i - 1];
      const high = i < now.bounds.length ? now.bounds[i] : low;
      return low + (high - low) * (left / counts[i]);
    }
    left -= counts[i];
  }
  return null;
}

function average(path, index) {
  const [now, then] = [at(samples[index], path), at(before(index), path)];
  if (!then) return null;
  const count = now.counts.reduce((sum, n, i) => sum + n - then.counts[i], 0);
  return count > 0 ? (now.sum - then.sum) / count : null;
}

// ── texts ────────────────────────────────────────────────────────────────────────────────────────────────────────────

const NONE = "–";
const whole = new Intl.NumberFormat("en");
const short = (n) => (n === null ? NONE : n >= 10000 ? `${plain(n / 1000)}k` : plain(n));
const plain = (n) => (n === 0 ? "0" : n < 0.01 ? n.toExponential(0) : n < 10 ? String(+n.toPrecision(2)) : whole.format(Math.round(n)));
const perSecond = (n) => (n === null ? NONE : `${short(n)}/s`);
const percent = (n) => (n === null ? NONE : `${n < 10 ? +n.toPrecision(2) : Math.round(n)} %`);

function seconds(s) {
  if (s === null) return NONE;
  if (s === 0) return "0";
  if (s < 0.001) return `${Math.round(s * 1e6)} µs`;
  if (s < 1) return `${+(s * 1000).toFixed(s < 0.1 ? 1 : 0)} ms`;
  return `${+s.toFixed(s < 10 ? 1 : 0)} s`;
}

function span(s) {
  if (s === null || s <= 0) return NONE;
  if (s < 60) return seconds(s);
  const [big, small] = SPANS.find(([, size]) => s >= size) ?? SPANS.at(-1);
  const next = SPANS[SPANS.findIndex(([name]) => name === big) + 1];
  const rest = next ? Math.floor((s % small) / next[1]) : 0;
  return `${Math.floor(s / small)} ${big}${rest ? ` ${rest} ${next[0]}` : ""}`;
}
const SPANS = [["d", 86400], ["h", 3600], ["min", 60]];

function bytes(n) {
  if (n === null) return NONE;
  for (const [unit, size] of [["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]]) {
    if (n >= size) return `${+(n / size).toFixed(n < 10 * size ? 1 : 0)} ${unit}`;
  }
  return `${Math.round(n)} B`;
}
const bytesPerSecond = (n) => (n === null ? NONE : `${bytes(n)}/s`);

// ── what is shown ────────────────────────────────────────────────────────────────────────────────────────────────────

const sockets = (s) => (s.sockets.property ?? 0) + (s.sockets.tenant ?? 0);
const cpu = (i) => { const r = rate("process.cpu_seconds", i); return r === null ? null : r * 100; };

const TILES = [
  ["Sockets open", (s) => whole.format(sockets(s)), (s) => `${whole.format(s.connections)} connections in all`],
  ["Notifications", (s, i) => perSecond(rate("notifications.created", i)), (s) => `${whole.format(s.notifications.created)} since the start`],
  ["Undelivered", (s) => whole.format(s.undelivered), (s) => `oldest: ${span(s.oldest_undelivered_seconds)}`],
  ["Delivered", (s) => percent(s.delivery_ratio * 100), (s) => `${whole.format(s.unread)} unread`],
  ["Request → device, p99", (s, i) => seconds(quantile("seconds.acknowledge_live", 0.99, i)), (s, i) => `p50 ${seconds(quantile("seconds.acknowledge_live", 0.5, i))}`],
  ["Commit, p99", (s, i) => seconds(quantile("seconds.commit", 0.99, i)), (s, i) => `jobs in each: ${short(average("batch_jobs", i))} · ${s.queues.writes} queued`],
  ["Memory", (s) => bytes(s.process.resident_bytes), (s) => `${s.process.descriptors === null ? NONE : whole.format(s.process.descriptors)} descriptors`],
  ["CPU", (s, i) => percent(cpu(i)), () => "of one core"],
];

// What axes count in, where not in tens.
const BINARY = [2 ** 30, 2 ** 20, 2 ** 10];

// Title, how a value is written, series, units of the axis.
const CHARTS = [
  ["Sockets", whole.format.bind(whole), [
    ["property", (s) => s.sockets.property ?? 0],
    ["tenant", (s) => s.sockets.tenant ?? 0]]],
  ["Notifications", perSecond, [
    ["created", (s, i) => rate("notifications.created", i)],
    ["delivered", (s, i) => rate("notifications.delivered", i)],
    ["read", (s, i) => rate("notifications.read", i)]]],
  ["Request → device acknowledged", seconds, [
    ["p50", (s, i) => quantile("seconds.acknowledge_live", 0.5, i)],
    ["p99", (s, i) => quantile("seconds.acknowledge_live", 0.99, i)]]],
  ["Request → commit, → written, p99", seconds, [
    ["commit", (s, i) => quantile("seconds.commit_wait", 0.99, i)],
    ["written", (s, i) => quantile("seconds.write_wait", 0.99, i)]]],
  ["Sent after a connect", perSecond, [
    ["replayed", (s, i) => rate("notifications.replayed", i)],
    ["skipped", (s, i) => rate("notifications.skipped", i)]]],
  ["Undelivered", whole.format.bind(whole), [
    ["waiting", (s) => s.undelivered]]],
  ["Oldest undelivered", (s) => (s === 0 ? "0" : span(s)), [
    ["age", (s) => s.oldest_undelivered_seconds]], [86400, 3600, 60]],
  ["Commit batches", short, [
    ["jobs a commit", (s, i) => average("batch_jobs", i)],
    ["queued", (s) => s.queues.writes],
    ["for the shared log", (s) => s.shared_log.queued]]],
  ["Commit time", seconds, [
    ["p50", (s, i) => quantile("seconds.commit", 0.5, i)],
    ["p99", (s, i) => quantile("seconds.commit", 0.99, i)]]],
  ["HTTP requests", perSecond, [
    ["all", (s, i) => rate("requests", i)],
    ["5xx", (s, i) => rate("server_errors", i)],
    ["handshakes", (s, i) => rate("handshakes", i)]]],
  ["Turned away", perSecond, [
    ["by a limit", (s, i) => rateOfAll("limits", i)],
    ["refused", (s, i) => rateOfAll("refusals", i)]]],
  ["Turn of the loop", seconds, [
    ["p50", (s, i) => quantile("seconds.turn", 0.5, i)],
    ["p99", (s, i) => quantile("seconds.turn", 0.99, i)]]],
  ["Traffic", bytesPerSecond, [
    ["out", (s, i) => rate("bytes.out", i)],
    ["in", (s, i) => rate("bytes.in", i)]], BINARY],
  ["CPU", percent, [
    ["of one core", (s, i) => cpu(i)]]],
  ["Memory", bytes, [
    ["resident", (s) => s.process.resident_bytes]], BINARY],
];

const CAUSES = [
  ["Turned away", "refusals", "Nobody was turned away."],
  ["Limits reached", "limits", "No limit was reached."],
  ["Sockets closed, by code", "closes", "No socket was closed."],
];

// What deserves a look although the server works.
function hints(s, i) {
  const found = [];
  const errors = rate("server_errors", i);
  if (errors > 0) found.push(`Requests fail with 5xx: ${perSecond(errors)}.`);
  const turn = quantile("seconds.turn", 0.99, i);
  if (turn > 0.1) found.push(`The loop is busy: one turn in a hundred takes ${seconds(turn)} or more.`);
  const commit = quantile("seconds.commit", 0.99, i);
  if (commit > 0.5) found.push(`The disk is slow: a commit takes up to ${seconds(commit)}.`);
  if (rate("log_lines_dropped", i) > 0) found.push(`Log lines are lost (${whole.format(s.log_lines_dropped)} so far): whoever reads standard output is too slow, or gone.`);
  if (s.shared_log.lag_seconds > 5) found.push(`This node is ${span(s.shared_log.lag_seconds)} behind the log that the nodes share.`);
  if (rate("failed_jobs", i) > 0) found.push("Commits fail.");
  for (const [limit, count] of Object.entries(s.limits)) {
    const then = before(i)?.limits[limit] ?? 0;
    if (before(i) && count > then && !["idle_timeout", "pong_timeout"].includes(limit)) {
      found.push(`limits.${limit} was reached ${whole.format(count - then)} times in the last seconds.`);
    }
  }
  if (s.process.descriptors > 0.9 * s.process.descriptors_max) found.push("Descriptors are running out.");
  return found;
}

// ── the page ─────────────────────────────────────────────────────────────────────────────────────────────────────────

const byId = (id) => document.getElementById(id);

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function drawn(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// Only what differs is written: a screen reader is not told the same thing again.
function say(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

const tiles = TILES.map(([title, value, more]) => {
  const [big, small] = [element("div", { className: "value" }), element("div", { className: "more" })];
  byId("tiles").append(element("div", { className: "tile" }, element("dt", { textContent: title }), element("dd", {}, big, small)));
  return { show(s, i) { say(big, value(s, i)); say(small, more(s, i)); } };
});

// Round steps for an axis from 0 to at least `top`.
function steps(top, units = []) {
  const unit = units.find((size) => top >= 2 * size) ?? 1;
  if (unit > 1) return steps(top / unit).map((mark) => mark * unit);
  if (!(top > 0)) return [0, 1];
  const raw = top / 3;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((n) => n * power).find((n) => n >= raw * 0.999);
  const marks = [];
  for (let value = 0; value < top + step * 0.999; value += step) marks.push(value);
  return marks;
}

class Chart {
  constructor([title, text, series, units]) {
    Object.assign(this, { title, text, series, units, cursor: null });
    this.legend = element("ul", { className: "legend" });
    this.values = series.map(([name], n) => {
      const value = element("b");
      this.legend.append(element("li", { className: `s${n}` }, `${name} `, value));
      return value;
    });
    this.svg = drawn("svg", { role: "img", tabindex: "0" });
    this.svg.addEventListener("pointermove", (e) => this.point(e));
    this.svg.addEventListener("pointerleave", () => this.move(null));
    this.svg.addEventListener("blur", () => this.move(null));
    this.svg.addEventListener("keydown", (e) => this.key(e));
    byId("charts").append(element("section", { className: "chart" }, element("h3", { textContent: title }), this.legend, this.svg));
  }

  point(event) {
    const box = this.svg.getBoundingClientRect();
    const end = samples.at(-1)?.time_ms ?? 0;
    const time = end - KEPT_MS + ((event.clientX - box.left - this.left) / (box.width - this.left - 8)) * KEPT_MS;
    let nearest = null;
    samples.forEach((s, i) => {
      if (nearest === null || Math.abs(s.time_ms - time) < Math.abs(samples[nearest].time_ms - time)) nearest = i;
    });
    this.move(nearest);
  }

  key(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -samples.length, End: samples.length }[event.key];
    if (event.key === "Escape") this.move(null);
    if (!step || samples.length === 0) return;
    event.preventDefault();
    const from = this.cursor ?? samples.length - 1;
    this.move(Math.min(samples.length - 1, Math.max(0, from + step)));
  }

  move(index) {
    if (this.cursor === index) return;
    this.cursor = index;
    this.draw();
  }

  draw() {
    const [width, height] = [this.svg.clientWidth || 400, this.svg.clientHeight || 168];
    const rows = this.series.map(([, of]) => samples.map((s, i) => of(s, i)));
    const marks = steps(Math.max(0, ...rows.flat().filter((value) => value !== null)), this.units);
    const labels = marks.map((mark) => this.text(mark));
    this.left = Math.max(...labels.map((label) => label.length)) * 6.6 + 8;
    const end = samples.at(-1)?.time_ms ?? Date.now();
    const x = (time) => this.left + ((time - end + KEPT_MS) / KEPT_MS) * (width - this.left - 8);
    const y = (value) => height - 20 - (value / marks.at(-1)) * (height - 30);
    const parts = [];
    marks.forEach((mark, n) => {
      parts.push(drawn("line", { class: "grid", x1: this.left, x2: width - 8, y1: y(mark), y2: y(mark) }));
      const label = drawn("text", { class: "tick", x: this.left - 6, y: y(mark) + 4, "text-anchor": "end" });
      label.textContent = labels[n];
      parts.push(label);
    });
    for (const minutes of [4, 3, 2, 1, 0]) {
      const label = drawn("text", { class: "tick", x: x(end - minutes * 60000), y: height - 4, "text-anchor": minutes ? "middle" : "end" });
      label.textContent = minutes ? `−${minutes} min` : "now";
      parts.push(label);
    }
    rows.forEach((row, n) => parts.push(...this.trace(row, n, x, y)));
    if (this.cursor !== null && samples[this.cursor]) {
      const place = x(samples[this.cursor].time_ms);
      parts.push(drawn("line", { class: "cursor", x1: place, x2: place, y1: 8, y2: height - 20 }));
    }
    this.svg.replaceChildren(...parts);
    const shown = this.cursor ?? samples.length - 1;
    this.values.forEach((value, n) => say(value, this.text(rows[n][shown] ?? null)));
    const when = this.cursor === null ? "now" : new Date(samples[shown].time_ms).toLocaleTimeString();
    const said = this.series.map(([name], n) => `${name} ${this.text(rows[n][shown] ?? null)}`).join(", ");
    this.svg.setAttribute("aria-label", `${this.title}, ${when}: ${said}`);
  }

  // A line; gaps stay gaps, a lonely point is a dot.
  trace(row, n, x, y) {
    const [parts, runs] = [[], [[]]];
    row.forEach((value, i) => {
      if (value === null) runs.push([]);
      else runs.at(-1).push([x(samples[i].time_ms), y(value)]);
    });
    for (const run of runs.filter((points) => points.length > 0)) {
      const path = run.map(([a, b], i) => `${i ? "L" : "M"}${a.toFixed(1)} ${b.toFixed(1)}`).join("");
      if (n === 0 && run.length > 1) {
        const base = y(0).toFixed(1);
        parts.push(drawn("path", { class: "area s0", d: `${path}L${run.at(-1)[0].toFixed(1)} ${base}L${run[0][0].toFixed(1)} ${base}Z` }));
      }
      if (run.length > 1) parts.push(drawn("path", { class: `line s${n}`, d: path }));
      else parts.push(drawn("circle", { class: `dot s${n}`, cx: run[0][0], cy: run[0][1], r: 2 }));
    }
    return parts;
  }
}

const charts = CHARTS.map((chart) => new Chart(chart));

const causes = CAUSES.map(([title, path, none]) => {
  const box = element("div");
  byId("causes").append(element("section", { className: "cause" }, element("h3", { textContent: title }), box));
  let last = "";
  return {
    show(s, i) {
      const rows = Object.entries(s[path]).sort((a, b) => b[1] - a[1]).map(([cause, count]) => {
        const then = before(i)?.[path][cause] ?? 0;
        return [cause, whole.format(count), before(i) && count > then ? `+${whole.format(count - then)}` : ""];
      });
      const text = JSON.stringify(rows);
      if (text === last && box.hasChildNodes()) return;
      last = text;
      if (rows.length === 0) return box.replaceChildren(element("p", { className: "none", textContent: none }));
      const head = element("tr", {}, ...["Cause", "In all", "Last 10 s"].map((t) => element("th", { scope: "col", textContent: t })));
      const body = rows.map(([cause, count, more]) => element("tr", {}, element("th", { scope: "row", textContent: cause }),
        element("td", { textContent: count }), element("td", { textContent: more })));
      box.replaceChildren(element("table", {}, element("thead", {}, head), element("tbody", {}, ...body)));
    },
  };
});

function banner(kind, text, list = []) {
  byId("banner").className = `banner ${kind}`;
  say(byId("status"), text);
  if (byId("hints").textContent !== list.join("")) {
    byId("hints").replaceChildren(...list.map((textContent) => element("li", { textContent })));
  }
  document.title = `${{ well: "✓", look: "!", failing: "✗" }[kind] ?? "…"} habittod`;
}

function show() {
  const i = samples.length - 1;
  const s = samples[i];
  for (const part of [...tiles, ...causes]) part.show(s, i);
  for (const chart of charts) chart.draw();
  say(byId("about"), `version ${s.version}, up for ${span((s.time_ms - s.started_ms) / 1000)}`);
  if (s.status === "draining") return banner("look", "Draining: this server is stopping and takes nobody new.");
  if (s.status === "failing") return banner("failing", `Not ready: ${s.why}`, hints(s, i));
  const list = hints(s, i);
  return list.length ? banner("look", "Ready, but worth a look.", list) : banner("well", "All is well: ready.");
}

function take(sample) {
  const last = samples.at(-1);
  if (last && last.started_ms !== sample.started_ms) samples.length = 0;
  samples.push(sample);
  while (samples[0].time_ms < sample.time_ms - KEPT_MS - WINDOW_MS) samples.shift();
  for (const chart of charts) if (chart.cursor !== null) chart.cursor = Math.min(chart.cursor, samples.length - 1);
}

async function ask() {
  try {
    const answer = await fetch("/stats.json", { cache: "no-store", signal: AbortSignal.timeout(5 * ASK_EVERY_MS) });
    if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
    take(await answer.json());
    failedSince = 0;
    show();
  } catch (e) {
    failedSince ||= Date.now();
    banner("failing", `No answer from the server since ${new Date(failedSince).toLocaleTimeString()}.`, [String(e.message ?? e)]);
  }
  setTimeout(ask, ASK_EVERY_MS);
}

addEventListener("resize", () => { if (samples.length) for (const chart of charts) chart.draw(); });
ask();
