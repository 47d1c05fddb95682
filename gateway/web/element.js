// Elements and cached text nodes.

/** @param {string} tag @param {Record<string, any>} [attributes] @param {...(Node|string|null)} children */
export function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? '' : value);
  }
  node.append(...children.filter((c) => c !== null));
  return node;
}

/** A text node that is written only when its text changes. */
export class Text {
  node = document.createTextNode('');
  #text = '';
  /** @param {string} text @returns {boolean} whether it changed */
  set(text) {
    if (text === this.#text) return false;
    this.#text = this.node.nodeValue = text;
    return true;
  }
  get() {
    return this.#text;
  }
}
