// The page: what is asked, and what is known of the answer while votes come in.

import { Problem, get, post, stream } from "./stream.js";
import { canDraw, changes, decode, draw, moved, noisy } from "./pictures.js";

const $ = (id) => document.getElementById(id);
const state = { model: null, file: null, input: null, request: null, latest: {}, votes: [], answer: null, going: null };
const COPIES = 4;

function element(name, attributes = {}, ...children) {
  const made = Object.assign(document.createElement(name), attributes);
  made.append(...children);
  return made;
}

// A length that is claimed is cut, never rounded up.
const length = (radius) => (Math.floor(radius * 1000) / 1000).toFixed(3);
const nameOf = (label) => state.model.classes?.[label] ?? `class ${label}`;
const many = (count) => count.toLocaleString("en");

// Options

const samples = () => {
  const [least, most] = [Math.log(100), Math.log(state.model?.limits.n ?? 1e5)];
  const n = Math.exp(least + ((most - least) * $("n").value) / 100);
  const digits = 10 ** Math.max(0, Math.floor(Math.log10(n)) - 1);
  return Math.min(Math.round(n / digits) * digits, state.model?.limits.n ?? 1e5);
};
const alpha = () => Number(`1e-${$("alpha").value}`);

function showOptions() {
  $("n-value").textContent = many(samples());
  $("alpha-value").textContent = alpha() >= 0.001 ? String(alpha()) : `10⁻${"⁰¹²³⁴⁵⁶"[$("alpha").value]}`;
  $("n").setAttribute("aria-valuetext", `${many(samples())} samples`);
  $("alpha").setAttribute("aria-valuetext", String(alpha()));
}

function take(file, pressed = null) {
  state.file = file;
  $("certify").disabled = false;
  for (const button of $("samples").querySelectorAll("button")) button.setAttribute("aria-pressed", String(button === pressed));
}

function formOf(extra) {
  const form = new FormData();
  form.append("image", state.file, "image");
  for (const [name, value] of Object.entries({ fit: "resize", n: samples(), alpha: alpha(), ...extra })) form.append(name, value);
  return form;
}

function showProblem(error) {
  $("problem").hidden = !error;
  if (!error) return;
  if (!(error instanceof Problem)) console.error(error);
  $("problem").textContent = error instanceof Problem ? error.message : "The page failed on this; the browser’s console says why.";
}

// One certificate, from the question to the record

async function certify() {
  showProblem(null);
  for (const id of ["answer", "votes", "routes", "ball", "attack", "record"]) $(id).hidden = true;
  state.going?.abort();
  const going = new AbortController();
  Object.assign(state, { input: null, request: null, latest: {}, votes: [], answer: null, going });
  const others = $("compare").checked && state.model.dual ? { compare: "min" } : {};
  setGoing(true);
  try {
    await stream("v1/certify", formOf({ stream: true, keep_input: true, ...others }), tell, going.signal);
    if (!state.answer) throw new Problem("The connection ended before there was an answer.");
  } catch (error) {
    if (error.name !== "AbortError") showProblem(error);
  }
  if (state.going === going) setGoing(false);
}

function setGoing(going) {
  $("certify").disabled = going || !state.file;
  $("stop").disabled = !going;
  $("answer").setAttribute("aria-busy", String(going));
}

function tell(name, data) {
  if (name === "begin") {
    state.request = data.request;
    state.input = decode(data.input);
    begin();
  } else if (name === "votes") {
    state.votes = data.votes;
    showVotes();
  } else if (name === "certificate") {
    state.latest[data.rule] = data;
    showCertificate();
  } else if (name === "answer") {
    state.answer = data;
    state.latest = data.record.certificates;
    showCertificate();
    finish();
  } else if (name === "problem") {
    throw new Problem(`The service gave up: ${data.detail}.`);
  }
}

function begin() {
  const { shape, range } = state.model;
  for (const id of ["answer", "votes"]) $(id).hidden = false;
  $("picture").hidden = !canDraw(shape);
  if (canDraw(shape)) {
    draw($("picture"), state.input, shape, range);
    showLevels();
  }
  $("label").textContent = "…";
  $("radius").textContent = "No radius is proved yet.";
  $("meaning").textContent = "";
  $("meter").firstElementChild.style.width = "0";
  $("models").replaceChildren();
}

function best() {
  const known = state.model.rules.map((rule) => state.latest[rule]).filter(Boolean);
  return known[0];
}

function showCertificate() {
  const certificate = best();
  if (!certificate) return;
  const { label, radius } = certificate;
  const over = state.answer !== null;
  $("label").textContent = label === null ? (over ? "It abstains" : "…") : nameOf(label);
  if (label === null) $("radius").textContent = over ? "Nothing is certified." : "No radius is proved yet.";
  else $("radius").textContent = `certified radius ${length(radius)}${over ? "" : ", growing"}`;
  const scale = 4 * Math.max(...state.model.sigmas);
  $("meter").firstElementChild.style.width = `${Math.min(100, (100 * radius) / scale)}%`;
  if (state.model.dual) showChoice(certificate.sigma);
  if (certificate.routes) showRoutes(certificate);
  if (label !== null && radius > 0 && canDraw(state.model.shape)) showBall(radius, nameOf(label));
}

function showVotes() {
  const total = state.votes.reduce((sum, each) => sum + each.counts.reduce((a, b) => a + b, 0), 0);
  $("progress").textContent = `${many(total)} votes`;
  for (const each of state.votes) showModel(each);
}

function showModel({ model, sigma, counts }) {
  const isEstimator = model === "estimator" && state.model.dual;
  const id = `model-${model}`;
  const card = document.getElementById(id) ?? $("models").appendChild(newCard(id, isEstimator, model, sigma, counts.length));
  const all = counts.reduce((a, b) => a + b, 0) || 1;
  card.querySelectorAll("tr").forEach((row, i) => {
    row.querySelector(".bar").style.width = `${(100 * counts[i]) / all}%`;
    row.querySelector(".count").textContent = many(counts[i]);
  });
}

function drawNoisy(canvas, sigma) {
  const [low, high] = state.model.range;
  draw(canvas, noisy(state.input, sigma), state.model.shape, [low - sigma, high + sigma]);
}

function showLevels() {
  const levels = [...new Set(state.model.sigmas)];
  $("levels").replaceChildren(...levels.map((sigma) => {
    const canvas = element("canvas", { role: "img", ariaLabel: `the image under noise of σ = ${sigma}` });
    drawNoisy(canvas, sigma);
    const item = element("li", {}, canvas, element("p", { textContent: `σ = ${sigma}` }));
    item.dataset.sigma = sigma;
    return item;
  }));
}

function showChoice(sigma) {
  for (const item of $("levels").children) {
    const chosen = Number(item.dataset.sigma) === sigma;
    item.className = chosen ? "chosen" : "";
    item.querySelector("p").textContent = `σ = ${item.dataset.sigma}${chosen ? ", chosen" : ""}`;
  }
}

function newCard(id, isEstimator, model, sigma, classes) {
  const { shape, sigmas, experts } = state.model;
  const title = isEstimator ? `The estimator: which noise level? (σ = ${sigma})` : `Expert at σ = ${sigma}: which class?`;
  const card = element("div", { id }, element("h3", { textContent: title }));
  if (canDraw(shape)) {
    const copies = element("div", { className: "copies" });
    for (let i = 0; i < COPIES; i++) {
      const canvas = element("canvas", { role: "img", ariaLabel: `a copy under noise of σ = ${sigma}` });
      drawNoisy(canvas, sigma);
      copies.append(canvas);
    }
    card.append(copies);
  }
  const rows = Array.from({ length: classes }, (_, i) => {
    const shared = new Set(sigmas).size < sigmas.length;
    const name = isEstimator ? `σ = ${sigmas[i]}${shared ? ` (${experts[i]})` : ""}` : nameOf(i);
    return element("tr", {}, element("th", { scope: "row", textContent: name }),
      element("td", {}, element("div", { className: "bar" })), element("td", { className: "count", textContent: "0" }));
  });
  const table = element("table", { className: "bars" }, element("tbody", {}, ...rows));
  table.setAttribute("aria-label", `Votes of ${isEstimator ? "the estimator" : `the expert at σ = ${sigma}`}`);
  card.append(table);
  return card;
}

function showRoutes(certificate) {
  $("routes").hidden = false;
  const harmless = (route) => Math.max(route.exclusion_radius, route.agreement_radius ?? 0);
  const least = Math.min(...certificate.routes.map(harmless));
  const answer = certificate.label === null ? "the leading class" : nameOf(certificate.label);
  $("route-rows").replaceChildren(...certificate.routes.map((route) => {
    const chosen = route.expert === certificate.expert;
    const row = element("tr", { className: harmless(route) === least ? "limiting" : "" },
      element("th", { scope: "row", textContent: `σ = ${route.sigma}${chosen ? " (chosen)" : ""}` }),
      element("td", { textContent: chosen ? "–" : length(route.exclusion_radius) }),
      element("td", { textContent: route.agreement_radius === null ? "not asked" : length(route.agreement_radius) }),
      element("td", { textContent: length(harmless(route)) }));
    return row;
  }));
  const limiting = certificate.routes.find((route) => harmless(route) === least);
  const isChosen = limiting.expert === certificate.expert;
  $("limit").textContent = isChosen
    ? `The expert at σ = ${limiting.sigma} answers, and it limits the radius: beyond ${length(least)} it is not proved to say “${answer}”.`
    : `The expert at σ = ${certificate.sigma} answers. The one at σ = ${limiting.sigma} limits the radius: beyond ${length(least)} it might be chosen instead, and is not proved to say “${answer}”.`;
  showMinRule(certificate);
}

function showMinRule(certificate) {
  const min = state.latest.min;
  const asked = $("compare").checked;
  $("min-rule").hidden = !asked;
  if (!asked) return;
  if (!min) {
    $("min-rule").textContent = state.answer ? "The min rule had not finished." : "The paper’s min rule looks once, at the end.";
    return;
  }
  const [choice, answer] = [min.estimator_radius, min.classifier_radius].map((radius) => (radius === null ? "–" : length(radius)));
  const claim = min.label === null ? "abstains" : `certifies “${nameOf(min.label)}” within ${length(min.radius)}`;
  const why = `the smaller of the choice’s radius, ${choice}, and the chosen expert’s, ${answer}`;
  const routed = certificate.radius >= min.radius
    ? `The routed rule certifies ${length(certificate.radius)}: an expert that gives the same answer may be chosen without harm.`
    : `The routed rule certifies ${length(certificate.radius)} only, because its bounds hold at every look, and the min rule looks once.`;
  $("min-rule").textContent = `The paper’s min rule, on the same votes, ${claim}: ${why}. ${routed}`;
}

function showBall(radius, name) {
  const { shape, range } = state.model;
  $("ball").hidden = false;
  $("ball-text").textContent = `Every image whose ℓ2 distance from this one is below ${length(radius)} gets the answer “${name}”. ` +
    "Some that are just as far as that:";
  const list = $("perturbed");
  state.directions ??= changes(shape);
  state.directions.forEach(([caption, direction], i) => {
    const item = list.children[i] ?? list.appendChild(element("li", {},
      element("canvas", { role: "img", ariaLabel: `the image with ${caption}` }), element("p", { textContent: caption })));
    draw(item.firstElementChild, moved(state.input, direction, radius), shape, range);
  });
}

function finish() {
  const { label, alpha: level, samples: spent, seconds, ended, record } = state.answer;
  const why = { deadline: ", when the time was up", client: ", when you had enough", shutdown: ", when the service ended" }[ended] ?? "";
  $("progress").textContent = `${many(spent)} votes in ${seconds.toFixed(1)} s${why}`;
  $("meaning").textContent = label === null
    ? "No class leads clearly enough. More samples may help; under this much noise, perhaps nothing does."
    : `With probability ${1 - level} or more, over the noise, no change of the image shorter than the radius changes this answer.`;
  $("attack").hidden = !state.model.attack;
  $("attack-state").textContent = "";
  $("attempts").replaceChildren();
  $("record").hidden = false;
  $("download").href = URL.createObjectURL(new Blob([JSON.stringify(record, null, 1)], { type: "application/json" }));
}

// Attempts to break it

async function attack() {
  const { label, radius } = state.answer;
  const attacked = label ?? mostVoted();
  showProblem(null);
  $("break").disabled = true;
  $("attempts").replaceChildren();
  $("attack-state").textContent = "Looking for directions in which the answer changes …";
  const found = [];
  try {
    await stream("v1/attack", formOf({ label: attacked, radius, n: Math.min(samples(), 2000) }), (name, data) => {
      if (name === "attempt") {
        found.push(data);
        showAttempt(data, attacked);
      } else if (name === "problem") throw new Problem(`The attack ended: ${data.detail}.`);
    });
    $("attack-state").textContent = summary(found, attacked);
  } catch (error) {
    $("attack-state").textContent = "";
    showProblem(error);
  }
  $("break").disabled = false;
}

function mostVoted() {
  const votes = state.votes.filter((each) => each.model !== "estimator").at(-1);
  return votes ? votes.counts.indexOf(Math.max(...votes.counts)) : 0;
}

function showAttempt(attempt, attacked) {
  const { shape, range } = state.model;
  const other = attempt.label !== null && attempt.label !== attacked;
  const item = element("li");
  if (canDraw(shape)) {
    const canvas = element("canvas", { role: "img", ariaLabel: `an image at distance ${length(attempt.norm)}` });
    draw(canvas, decode(attempt.input), shape, range);
    item.append(canvas);
  }
  const goal = { label: "aims at the answer", both: "aims at choice and answer", choice: "aims at the choice", random: "at random" };
  item.append(
    element("p", { textContent: `${attempt.certified ? "inside" : "outside"}, distance ${length(attempt.norm)}, ${goal[attempt.aim] ?? attempt.aim}` }),
    element("p", { className: other ? "other" : "same", textContent: attempt.label === null ? "it abstains" : nameOf(attempt.label) }));
  $("attempts").append(item);
}

function summary(found, attacked) {
  const inside = found.filter((each) => each.certified);
  const outside = found.find((each) => !each.certified && each.label !== null && each.label !== attacked);
  const broken = inside.filter((each) => each.broken).length;
  const first = inside.length === 0 ? "Nothing was certified. "
    : broken ? `${broken} of ${inside.length} attempts inside the ball changed the answer: this is that one time in ${Math.round(1 / state.answer.alpha)}, or a fault. `
    : `None of ${inside.length} attempts inside the ball changed the answer. `;
  const second = outside ? `Outside, at distance ${length(outside.norm)}, it becomes “${nameOf(outside.label)}”.`
    : "Outside, none of the attempts changed it either, which proves nothing.";
  return first + second;
}

// The page itself

async function open() {
  showOptions();
  try {
    state.model = await get("v1/model");
  } catch (error) {
    showProblem(error);
    return;
  }
  const { name, dual, sigmas, shape } = state.model;
  const levels = `σ = ${sigmas.join(", ")}`;
  $("model").textContent = `${name}: ${dual ? `chooses ${levels} for each image` : levels}, images of ${shape.join(" × ")}`;
  $("compare-option").hidden = !dual;
  showOptions();
  const offered = await get("v1/samples");
  $("samples").hidden = offered.length === 0;
  $("samples").querySelector("ul").append(...offered.map(sampleButton));
}

function sampleButton({ index, name, label }) {
  const picture = element("img", { src: `v1/samples/${index}`, alt: `sample ${index}: ${name ?? `class ${label}`}` });
  const button = element("button", { type: "button", title: name ?? "" }, picture);
  button.setAttribute("aria-pressed", "false");
  button.addEventListener("click", async () => {
    const response = await fetch(picture.src);
    take(await response.blob(), button);
    $("file").value = "";
    certify();
  });
  return element("li", {}, button);
}

for (const id of ["n", "alpha"]) $(id).addEventListener("input", showOptions);
$("options").addEventListener("submit", (event) => {
  event.preventDefault();
  certify();
});
$("stop").addEventListener("click", () => {
  if (state.request) post(`v1/requests/${state.request}/stop`).catch(showProblem);
  else state.going?.abort();
});
$("break").addEventListener("click", attack);
$("file").addEventListener("change", () => {
  if ($("file").files.length) {
    take($("file").files[0]);
    certify();
  }
});
for (const name of ["dragover", "dragleave", "drop"]) {
  $("drop").addEventListener(name, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", name === "dragover");
    if (name === "drop" && event.dataTransfer.files.length) {
      take(event.dataTransfer.files[0]);
      certify();
    }
  });
}
open();
