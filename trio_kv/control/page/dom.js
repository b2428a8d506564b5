// Small helpers for elements. What is drawn again and again is made once and then changed, never made anew.

const SVG = "http://www.w3.org/2000/svg";

/** Make an HTML element; children may be elements or texts. */
export function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** Make an SVG element. */
export function makeSvg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** Set an element's text, if it is another one; its text node stays the same. */
export function setText(element, text) {
  const node = element.firstChild;
  if (node === null || node.nodeType !== Node.TEXT_NODE || node.nextSibling !== null) {
    if (element.textContent !== text) element.textContent = text;
  } else if (node.data !== text) {
    node.data = text;
  }
}

/** Set or remove an attribute, if that changes something. */
export function setAttribute(element, name, value) {
  if (value === null || value === false) {
    if (element.hasAttribute(name)) element.removeAttribute(name);
    return;
  }
  const text = value === true ? "" : String(value);
  if (element.getAttribute(name) !== text) element.setAttribute(name, text);
}

/** Show or hide an element. */
export function setShown(element, isShown) {
  if (element.hidden === isShown) element.hidden = !isShown;
}

/** Return the element with an id. */
export function byId(id) {
  return document.getElementById(id);
}

/** Whether somebody types into this element, so that keys are letters there. */
export function isTyping(element) {
  return element instanceof HTMLElement
    && (element.matches("input:not([type=range]):not([type=checkbox]):not([type=radio]), select, textarea") || element.isContentEditable);
}

/** Whether movement is unwanted. */
export const stillness = matchMedia("(prefers-reduced-motion: reduce)");
