// The page: who is there, and which view is shown.

import { begin, session, signIn, signOut } from "./api.js";
import { forget } from "./catalogue.js";
import { $, complain, say } from "./dom.js";
import * as data from "./data.js";
import * as jobs from "./jobs.js";
import * as models from "./models.js";
import * as pictures from "./pictures.js";
import { here, link, onRoute } from "./route.js";
import * as verify from "./verify.js";

const TITLES = { grid: "Grid", sheet: "Sheet", walk: "Walk", verify: "Verify", models: "Models", jobs: "Jobs", data: "Data sets" };
const PLACES = {
  grid: ["pictures", pictures],
  sheet: ["pictures", pictures],
  walk: ["pictures", pictures],
  verify: ["verify", verify],
  models: ["models", models],
  jobs: ["jobs", jobs],
  data: ["data", data],
};
const CARRIED = ["model", "version", "label", "seed", "truncation"];

let shown;
let turn = 0;

async function render() {
  const { view, parameters } = here();
  const [place, module] = PLACES[view];
  const mine = ++turn;
  const admin = session.role === "admin";
  const closed = (session.guarded && !session.role) || (["jobs", "data"].includes(view) && !admin);

  document.title = `${TITLES[view]} · ganserve`;
  for (const section of document.querySelectorAll("main > section")) {
    section.hidden = section.id !== (closed ? "closed" : place);
  }
  for (const item of $("nav").children) {
    item.hidden = "admin" in item.dataset && !admin;
    if (item.dataset.view === view) item.setAttribute("aria-current", "page");
    else item.removeAttribute("aria-current");
  }
  $("sign").textContent = session.role ? "Forget token" : "Enter token";
  complain(null);
  if (shown && shown !== module) shown.leave();
  shown = closed ? undefined : module;
  if (closed) {
    $("closed-text").textContent = session.guarded
      ? "This server shows its pictures to those who have its token."
      : "Jobs and data sets are for those who have the admin token.";
    return;
  }
  try {
    await module.show(view, parameters, () => mine === turn);
  } catch (error) {
    if (mine === turn && error.name !== "AbortError") refuse(error);
  }
  if (mine !== turn) return;
  const now = here().parameters;
  const carried = Object.fromEntries(CARRIED.map((name) => [name, now[name]]));
  for (const item of $("nav").children) {
    const pictured = PLACES[item.dataset.view][1] === pictures;
    item.href = link(item.dataset.view, pictured ? carried : {});
  }
}

function refuse(error) {
  if (error.status === 401 && session.role) {
    signOut();
    render();
  }
  complain(error);
}

function askToken() {
  const dialog = $("token-dialog");
  dialog.querySelector(".form-problem").textContent = "";
  $("token").value = "";
  dialog.showModal();
}

$("sign").addEventListener("click", () => {
  if (!session.role) return askToken();
  signOut();
  forget();
  say("The token is forgotten.");
  render();
});
$("closed-sign").addEventListener("click", askToken);
$("token-cancel").addEventListener("click", () => $("token-dialog").close());
$("token-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const problem = event.target.querySelector(".form-problem");
  problem.textContent = "";
  try {
    await signIn($("token").value.trim());
  } catch (error) {
    problem.textContent = error.message;
    $("token").select();
    return;
  }
  $("token").value = "";
  $("token-dialog").close();
  forget();
  say(session.role === "admin" ? "You may now promote, train and upload." : "You may now see the pictures.");
  render();
});
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  $("main").focus();
});

pictures.begin(refuse);
models.begin(refuse);
verify.begin(refuse);
jobs.begin(refuse);
data.begin(refuse);
onRoute(render);
let told;
try {
  await begin();
} catch (error) {
  told = error;
}
await render();
if (told) complain(told);
