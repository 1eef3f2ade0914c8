// Sorting and filtering of the list of runs. Without this script the list keeps its order.
(() => {
  const table = document.querySelector("table.list");
  if (!table) return;
  const body = table.tBodies[0], rows = [...body.rows], heads = [...table.tHead.rows[0].cells];
  const names = heads.map((head) => head.dataset.name);
  const valueOf = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.value ?? cell.textContent.trim();
  };

  const textOf = (row, column) => row.cells[column].textContent.trim().replace("−", "-"); // as it is typed

  const sort = (column, descending) => {
    const number = heads[column].dataset.kind === "number";
    const compare = (one, two) => {
      const [a, b] = [valueOf(one, column), valueOf(two, column)];
      if (a === "" || b === "") return (a === "") - (b === ""); // missing values come last in either direction
      const order = number ? a - b : a.localeCompare(b, undefined, { numeric: true });
      return descending ? -order : order;
    };
    rows.sort(compare);
    body.append(...rows);
    heads.forEach((head, index) => {
      if (index === column) head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
  };
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => sort(column, head.getAttribute("aria-sort") === "ascending"));
  });

  // A plain word searches all columns; column=text, column<number and column>number search one.
  const test = (word) => {
    const [, name, sign, wanted] = word.match(/^([^=<>]+)([=<>])(.*)$/) ?? [];
    const column = names.indexOf(name?.toLowerCase());
    if (column < 0) return (row) => row.textContent.toLowerCase().includes(word.toLowerCase());
    if (sign === "=") {
      const any = wanted.toLowerCase().split(",");
      return (row) => [textOf(row, column), valueOf(row, column)].some((each) => any.includes(each.toLowerCase()));
    }
    const number = heads[column].dataset.kind === "number";
    return (row) => {
      const text = number ? valueOf(row, column) : textOf(row, column);
      const [one, two] = number ? [+text, +wanted] : [text, wanted];
      return text !== "" && wanted !== "" && (sign === "<" ? one < two : one > two);
    };
  };
  const controls = document.querySelector(".controls"), input = controls.querySelector("input");
  const count = controls.querySelector("output");
  const filter = () => {
    const tests = input.value.split(/\s+/).filter(Boolean).map(test);
    let shown = 0;
    for (const row of rows) {
      row.hidden = !tests.every((each) => each(row));
      shown += !row.hidden;
    }
    count.textContent = `${shown} of ${rows.length} runs`;
  };
  input.addEventListener("input", filter);
  controls.hidden = false;
  filter();

  // A link into a closed list opens it.
  const open = () => {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const closed = target && target.closest("details:not([open])");
    if (closed) {
      closed.open = true;
      target.scrollIntoView();
    }
  };
  addEventListener("hashchange", open);
  open();
})();
