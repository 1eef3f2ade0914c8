// Filtering of the list of runs, which sortable.min.js sorts. Without scripts the list keeps its order.
// A link into a closed list opens it.
(() => {
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

(() => {
  const table = document.querySelector("table.list");
  if (!table) return;
  const rows = [...table.tBodies[0].rows], heads = [...table.tHead.rows[0].cells];
  const names = heads.map((head) => head.dataset.name);
  const valueOf = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.sort ?? cell.textContent.trim();
  };

  const textOf = (row, column) => row.cells[column].textContent.trim().replace("−", "-"); // as it is typed

  // The library sorts at a click on a heading; a button inside makes headings reachable by keyboard.
  for (const head of heads) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
  }

  // A plain word searches all columns; column=text, column<number and column>number search one. Settings have the form
  // name=value, too, so that a word with another name is searched for as it is.
  const parted = (word) => {
    const [, name, sign, wanted] = word.match(/^([^=<>]+)([<>]=?|=)(.*)$/) ?? [];
    return { name, sign, wanted, column: names.indexOf(name?.toLowerCase()) };
  };
  const test = (word) => {
    const { sign, wanted, column } = parted(word);
    if (column < 0) {
      const text = word.toLowerCase().replace(/[^\w\s]/g, "\\$&") + (sign ? "(?![\\w.])" : ""); // not steps=60 for steps=6
      return (row) => new RegExp(text).test(row.textContent.toLowerCase());
    }
    if (sign === "=") {
      const any = wanted.toLowerCase().split(",");
      return (row) => [textOf(row, column), valueOf(row, column)].some((each) => any.includes(each.toLowerCase()));
    }
    const number = heads[column].dataset.kind === "number";
    return (row) => {
      const text = number ? valueOf(row, column) : textOf(row, column);
      const [one, two] = number ? [+text, +wanted] : [text, wanted];
      const holds = (sign[0] === "<" ? one < two : one > two) || (sign.length > 1 && one === two);
      return text !== "" && wanted !== "" && holds;
    };
  };
  const controls = document.querySelector(".controls"), input = controls.querySelector("input");
  const count = controls.querySelector("output");
  const filter = () => {
    const words = input.value.replace(/\s*([<>]=?|=)\s*/g, "$1").split(/\s+/).filter(Boolean), tests = words.map(test);
    let shown = 0;
    for (const row of rows) {
      row.hidden = !tests.every((each) => each(row));
      shown += !row.hidden;
    }
    const unknown = words.map(parted).find(({ sign, column }) => sign && column < 0);
    const bound = words.map(parted).find(({ sign, column, wanted }) =>
      sign && sign !== "=" && heads[column]?.dataset.kind === "number" && !(wanted !== "" && isFinite(wanted)));
    const reason = bound ? `; ${bound.name}${bound.sign} needs a number` : unknown ? `; no column ${unknown.name}, choose among ${names.join(", ")}` : "";
    const note = shown ? "" : reason;
    count.textContent = `${shown} of ${rows.length} runs${note}`;
  };
  input.addEventListener("input", filter);
  controls.hidden = false;
  filter();
})();
