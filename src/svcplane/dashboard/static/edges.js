// Edges of the map: quiet ones, those somebody points at, and those that carry traffic, with dots that move along them.

const MOVING = 100; // at most so many edges move: the busiest
const FRAME_MS = 33;

/** Draws all edges; gives those with traffic, the busiest first. */
export function drawEdges(pen, plan, colour, { focus, focusPod, traffic }) {
  const dim = focus || focusPod;
  const quiet = new Path2D();
  const loud = { ready: new Path2D(), not: new Path2D() };
  const busy = [];
  for (const { summary, x, y, w, h } of plan.services) {
    for (const end of summary.endpoints) {
      const pod = plan.pods.get(end.pod);
      if (!pod) continue;
      const from = plan.named || !dim ? x + w : x + w / 2;
      const curve = [from, y + h / 2, (from + pod.x) / 2, pod.y + pod.h / 2, pod.x];
      const here = summary.key === focus || end.pod === focusPod;
      const flow = traffic.of(summary.key, end.id);
      if (flow && (flow.new || flow.active)) busy.push({ pod: end.pod, curve, flow, here: here || !dim, named: plan.named });
      // a thousand Services have more edges than an eye can part: only those that tell something are drawn
      if (!here && !plan.named && end.ready) continue;
      trace(here ? (end.ready ? loud.ready : loud.not) : quiet, curve);
    }
  }
  pen.lineWidth = 1;
  pen.strokeStyle = plan.named ? colour.edge : colour.none;
  pen.globalAlpha = (plan.named ? 0.7 : 0.3) * (dim ? 0.25 : 1);
  pen.stroke(quiet);
  pen.globalAlpha = 1;
  busy.sort((a, b) => weight(b.flow) - weight(a.flow));
  pen.strokeStyle = colour.flow;
  for (const { curve, flow, here, named } of busy) {
    pen.globalAlpha = (named ? 0.85 : 0.3) * (here ? 1 : 0.25);
    pen.lineWidth = named ? Math.min(6, 1.5 + Math.log2(1 + weight(flow)) / 2) : 1 + Math.min(1, weight(flow) / 100);
    pen.stroke(trace(new Path2D(), curve));
  }
  pen.globalAlpha = 1;
  pen.lineWidth = 2;
  pen.strokeStyle = colour.accent;
  pen.stroke(loud.ready);
  pen.strokeStyle = colour.none;
  pen.setLineDash([5, 4]);
  pen.stroke(loud.not);
  pen.setLineDash([]);
  return busy;
}

const weight = ({ new: begun, active }) => begun + active / 4;

function trace(path, [ax, ay, middle, by, bx]) {
  path.moveTo(ax, ay);
  path.bezierCurveTo(middle, ay, middle, by, bx, by);
  return path;
}

/** Where a curve is after the share `t` of its way. */
function point([ax, ay, middle, by, bx], t) {
  const [a, b, c, d] = [(1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t ** 2, t ** 3];
  return [a * ax + (b + c) * middle + d * bx, (a + b) * ay + (c + d) * by];
}

/** Dots along the busy edges, on a canvas of their own: the map itself is not drawn again for them. */
export class Moving {
  constructor(canvas) {
    this.canvas = canvas;
    this.edges = [];
    this.still = matchMedia("(prefers-reduced-motion: reduce)");
    this.last = 0;
  }

  show(edges, colour, ratio) {
    Object.assign(this, { edges: edges.filter((one) => one.flow.new && one.here).slice(0, MOVING), colour, ratio });
    if (!this.frame) this.tick(performance.now());
  }

  stop() {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    this.edges = [];
  }

  tick(now) {
    this.frame = 0;
    const pen = this.canvas.getContext("2d");
    if (now - this.last >= FRAME_MS || !this.edges.length) {
      this.last = now;
      pen.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
      pen.clearRect(0, 0, this.canvas.width, this.canvas.height);
      if (!this.still.matches) this.dots(pen, now);
    }
    if (this.edges.length && !this.still.matches) this.frame = requestAnimationFrame((then) => this.tick(then));
  }

  dots(pen, now) {
    pen.fillStyle = this.colour.flow;
    pen.strokeStyle = this.colour.panel;
    pen.lineWidth = 1;
    this.edges.forEach(({ curve, flow, named }, index) => {
      const count = Math.min(named ? 4 : 1, 1 + Math.floor(Math.log2(1 + flow.new)));
      for (let dot = 0; dot < count; dot += 1) {
        const [x, y] = point(curve, (now / 1600 + dot / count + index * 0.37) % 1);
        pen.beginPath();
        pen.arc(x, y, named ? 3.5 : 2, 0, 7);
        pen.fill();
        pen.stroke();
      }
    });
  }
}
