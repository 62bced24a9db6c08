const filters = document.getElementById("filters");
if (filters) {
  const rows = [...document.querySelectorAll("#rows tbody tr")];
  const buttons = [...filters.querySelectorAll("button")];
  const search = filters.querySelector("input");
  const told = document.getElementById("told");
  const texts = rows.map((row) => row.textContent.toLowerCase());
  let kind = "all";
  const show = () => {
    const words = search.value.toLowerCase();
    let shown = 0;
    rows.forEach((row, place) => {
      const fits = (kind === "all" || row.dataset.kinds.split(" ").includes(kind)) && texts[place].includes(words);
      row.hidden = !fits;
      shown += fits ? 1 : 0;
    });
    buttons.forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.kind === kind)));
    told.textContent = `${shown} of ${rows.length} rows`;
  };
  buttons.forEach((button) => button.addEventListener("click", () => { kind = button.dataset.kind; show(); }));
  search.addEventListener("input", show);
  filters.hidden = false;
  show();
}
