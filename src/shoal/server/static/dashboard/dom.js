// Elements from data. Text becomes text nodes and nothing else: there is no way from a string to markup here.

const SVG = "http://www.w3.org/2000/svg";

/** Describe an element: h("p", {class: "quiet", onclick: f}, "text", child, [children], null). */
export function h(tag, given = {}, ...children) {
  return { tag, given: given ?? {}, children: children.flat(9).filter((c) => c !== null && c !== undefined && c !== false) };
}

function make(node, svg = false) {
  if (typeof node !== "object") return document.createTextNode(String(node));
  const inside = svg || node.tag === "svg";
  const element = inside ? document.createElementNS(SVG, node.tag) : document.createElement(node.tag);
  set(element, node.given, {});
  for (const child of node.children) element.append(make(child, inside));
  element.described = node.given;
  return element;
}

function set(element, given, before) {
  for (const name of Object.keys(before)) if (!(name in given)) put(element, name, null);
  for (const [name, value] of Object.entries(given)) if (before[name] !== value) put(element, name, value);
}

function put(element, name, value) {
  if (name.startsWith("on")) element[name] = value;
  else if (name === "key") return;
  else if (name === "value" || name === "checked") element[name] = value ?? "";
  else if (name === "style") for (const [property, to] of Object.entries(value ?? {})) element.style.setProperty(property, to);
  else if (value === null || value === undefined || value === false) element.removeAttribute(name);
  else element.setAttribute(name, value === true ? "" : String(value));
}

/** Make the children of `root` those that are described, and keep the elements that are there: focus stays. */
export function render(root, ...nodes) {
  settle(root, nodes.flat(9).filter((n) => n !== null && n !== undefined && n !== false), false);
}

function settle(root, nodes, svg) {
  nodes.forEach((node, index) => {
    const there = root.childNodes[index];
    if (there === undefined) root.append(make(node, svg));
    else if (fits(there, node)) renew(there, node, svg);
    else there.replaceWith(make(node, svg));
  });
  while (root.childNodes.length > nodes.length) root.lastChild.remove();
}

function fits(there, node) {
  if (typeof node !== "object") return there.nodeType === Node.TEXT_NODE;
  return there.nodeType === Node.ELEMENT_NODE && there.localName === node.tag.toLowerCase() && there.described?.key === node.given.key;
}

function renew(there, node, svg) {
  if (typeof node !== "object") {
    if (there.data !== String(node)) there.data = String(node);
    return;
  }
  // what a person is typing is theirs
  const given = there === document.activeElement && "value" in node.given ? { ...node.given, value: there.described.value } : node.given;
  set(there, given, there.described);
  there.described = given;
  if (!("kept" in node.given)) settle(there, node.children, svg || node.tag === "svg");
}

/** Say something to everybody, also to those who listen to the page. */
export function say(text, wrong = false) {
  const said = document.getElementById("said");
  render(said, h("p", { class: wrong ? "wrong" : "done" }, text));
  clearTimeout(said.timer);
  said.timer = setTimeout(() => render(said), 8000);
}
