// The paths of nodes and messages. Shape tells role and kind; colour only repeats it.

import { NODE_RADIUS } from "./layout.js";

/** Return a closed path with corners at equal angles. */
function polygon(corners, radius, turn = -Math.PI / 2) {
  const points = Array.from({ length: corners }, (_, place) => {
    const angle = turn + (2 * Math.PI * place) / corners;
    return `${(radius * Math.cos(angle)).toFixed(1)} ${(radius * Math.sin(angle)).toFixed(1)}`;
  });
  return `M${points.join("L")}Z`;
}

const circle = (radius) => `M${-radius} 0a${radius} ${radius} 0 1 0 ${2 * radius} 0a${radius} ${radius} 0 1 0 ${-2 * radius} 0Z`;

export const ROLE_SHAPES = {
  leader: polygon(6, NODE_RADIUS + 3, 0),
  follower: circle(NODE_RADIUS - 2),
  candidate: polygon(4, NODE_RADIUS + 7),
  pre_candidate: polygon(4, NODE_RADIUS + 7),
  down: `M${-31} -31H31V31H-31Z`,
};

export const CROWN = "M-15 7L-18 -8L-8 -1L0 -12L8 -1L18 -8L15 7Z";

export const MESSAGE_SHAPES = {
  square: "M-6 -6H6V6H-6Z",
  dot: circle(4),
  triangle: polygon(3, 8),
  wedge: polygon(3, 8, Math.PI / 2),
  diamond: polygon(4, 7.5),
  hexagon: polygon(6, 8),
  bar: "M-7 -2.500H7V2.500H-7Z",
  lost: "M-6 -6L6 6M6 -6L-6 6",
};
