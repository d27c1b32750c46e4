// Where the filters are: beside the results, or, where there is no room for that, in a sheet that a button opens.

import { byId } from "./dom.js";

export function watchSheet() {
  const [sheet, form] = [byId("sheet"), byId("filter-form")];
  const wide = matchMedia("(min-width: 900px)");
  const settle = () => {
    sheet.close();
    if (wide.matches) byId("filters").append(form);
    else sheet.querySelector(".sheet-body").append(form);
  };
  wide.addEventListener("change", settle);
  settle();
  byId("open-filters").addEventListener("click", () => sheet.showModal());
  sheet.addEventListener("click", (event) => event.target === sheet && sheet.close());
  for (const button of sheet.querySelectorAll("[data-close]")) button.addEventListener("click", () => sheet.close());
}
