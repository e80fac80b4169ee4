"use strict";
for (const button of document.querySelectorAll("[data-copy]")) {
  button.hidden = !navigator.clipboard;
  button.onclick = async () => {
    await navigator.clipboard.writeText(button.previousElementSibling.textContent);
    button.textContent = "Copied";
  };
}
addEventListener("beforeprint", () => document.querySelectorAll("details:not(.long)").forEach((one) => (one.open = true)));

for (const map of document.querySelectorAll(".map")) {
  const { tile, columns, rows } = map.dataset;
  const tip = map.querySelector(".tip"), picture = tip.querySelector("i"), text = tip.querySelector("span");
  const points = [...map.querySelectorAll("path[data-i]")], frame = map.querySelector(".frame");
  let shown = null;
  points.forEach((one) => { one.said = one.textContent; one.textContent = ""; });
  picture.style.backgroundImage = `url(${tile})`;
  picture.style.backgroundSize = `${columns * 100}% ${rows * 100}%`;
  const show = (point) => {
    shown?.classList.remove("on");
    shown = point;
    tip.hidden = !point;
    if (!point) return;
    point.classList.add("on");
    const i = Number(point.dataset.i), across = Math.max(1, columns - 1), down = Math.max(1, rows - 1);
    picture.style.backgroundPosition = `${(100 * (i % columns)) / across}% ${(100 * Math.floor(i / columns)) / down}%`;
    text.textContent = point.said;
    const at = point.getBoundingClientRect(), box = map.getBoundingClientRect();
    const x = at.left + at.width / 2 - box.left, y = at.top + at.height / 2 - box.top;
    tip.style.left = `${Math.max(0, Math.min(box.width - tip.offsetWidth, x + 14))}px`;
    tip.style.top = `${y > box.height / 2 ? y - tip.offsetHeight - 14 : y + 14}px`;
  };
  const pointed = (event) => show(event.target.closest("path[data-i]"));
  frame.addEventListener("pointerover", pointed);
  frame.addEventListener("click", pointed);
  frame.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && show(null));
  frame.addEventListener("blur", () => show(null));
  frame.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape") show(null);
    if (!step) return;
    event.preventDefault();
    show(points[(points.indexOf(shown) + step + points.length) % points.length]);
  });
  const buttons = [...map.querySelectorAll(".key button")];
  buttons.forEach((button) => {
    button.onclick = () => {
      const pressed = button.getAttribute("aria-pressed") !== "true";
      buttons.forEach((one) => one.setAttribute("aria-pressed", pressed && one === button));
      map.querySelectorAll("path[data-c]").forEach((one) =>
        one.classList.toggle("faint", pressed && one.dataset.c !== button.dataset.c));
    };
  });
}
