// Where nodes stand: on a ring, and in groups that stand apart where no sound way leads from one to the other.

export const CENTRE = { x: 300, y: 268 };
export const RADIUS = 192;
export const NODE_RADIUS = 40;
const GAP = 0.42;
const APART = 34;

/** Return the pairs of nodes between which at least one direction is cut, as a set of "1-2". */
export function cutPairs(links) {
  const pairs = new Set();
  for (const { link: [from, to], is_cut: isCut } of links) if (isCut) pairs.add(pairKey(from, to));
  return pairs;
}

/** Return how two nodes are named as a pair, whichever comes first. */
export const pairKey = (one, other) => (one < other ? `${one}-${other}` : `${other}-${one}`);

/** Return the groups of nodes that reach each other by sound links, in the order of their smallest nodes. */
export function groupsOf(nodes, links) {
  const cut = cutPairs(links);
  const groups = [];
  const left = new Set(nodes);
  for (const start of nodes) {
    if (!left.delete(start)) continue;
    const group = [start];
    for (const node of group) {
      for (const other of [...left]) {
        if (cut.has(pairKey(node, other))) continue;
        left.delete(other);
        group.push(other);
      }
    }
    groups.push(group.sort((a, b) => a - b));
  }
  return groups;
}

/** Return where each node stands: a map of node to {x, y}. */
export function placesOf(groups) {
  const count = groups.reduce((sum, group) => sum + group.length, 0);
  const gap = groups.length > 1 ? Math.min(GAP, Math.PI / groups.length) : 0;
  const step = (2 * Math.PI - gap * groups.length) / count;
  const places = new Map();
  let angle = -Math.PI / 2;
  for (const group of groups) {
    const middle = angle + ((group.length - 1) * step) / 2;
    const shift = groups.length > 1 ? { x: APART * Math.cos(middle), y: APART * 0.6 * Math.sin(middle) } : { x: 0, y: 0 };
    for (const node of group) {
      places.set(node, {
        x: CENTRE.x + RADIUS * Math.cos(angle) + shift.x,
        y: CENTRE.y + RADIUS * Math.sin(angle) + shift.y,
      });
      angle += step;
    }
    angle += gap;
  }
  return places;
}

/** Return the groups after one node was dropped at a place: with whom it is near, or alone far out. */
export function groupsAfterDrop(groups, places, node, place) {
  const others = groups.map((group) => group.filter((each) => each !== node)).filter((group) => group.length);
  const near = others.find((group) => isNear(group, places, place));
  const isOut = Math.hypot(place.x - CENTRE.x, place.y - CENTRE.y) > RADIUS + 42;
  if (near) near.push(node);
  else if (isOut || others.length === 0) others.push([node]);
  else largest(others).push(node);
  return others.map((group) => group.sort((a, b) => a - b)).sort((a, b) => a[0] - b[0]);
}

const largest = (groups) => groups.reduce((best, group) => (group.length > best.length ? group : best));

function isNear(group, places, place) {
  return group.some((each) => {
    const there = places.get(each);
    return Math.hypot(there.x - place.x, there.y - place.y) < 2.6 * NODE_RADIUS;
  });
}
