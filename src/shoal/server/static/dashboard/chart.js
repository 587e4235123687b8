// Lines over versions. The library is loaded when there is something to draw.

let loading = null;
const library = () => (loading ??= import("./uplot/uPlot.js").then((found) => {
  const sheet = document.createElement("link");
  sheet.rel = "stylesheet";
  sheet.href = "/dashboard/uplot/uPlot.min.css";
  document.head.append(sheet);
  return found.default;
}));

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Keep a chart of `series` ({name: [values]}) over `versions` in an element; call again when there is more. */
export class Chart {
  #plot = null;
  #names = "";
  #last = "";

  async show(element, versions, series) {
    const names = Object.keys(series);
    const last = `${versions.length}:${versions.at(-1)}:${element.clientWidth}:${matchMedia("(prefers-color-scheme: dark)").matches}`;
    if (last === this.#last && names.join() === this.#names && element.contains(this.#plot?.root ?? null)) return;
    this.#last = last;
    const uPlot = await library();
    const data = [versions, ...names.map((name) => series[name])];
    if (this.#plot !== null && names.join() === this.#names && element.contains(this.#plot.root)) {
      this.#plot.setSize({ width: element.clientWidth, height: 260 });
      this.#plot.setData(data);
      return;
    }
    this.#plot?.destroy();
    this.#names = names.join();
    const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line") }, font: "12px system-ui" };
    this.#plot = new uPlot(
      {
        width: element.clientWidth,
        height: 260,
        scales: { x: { time: false } },
        axes: [{ ...axis, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000] }, { ...axis, size: 64 }],
        series: [{ label: "version" }, ...names.map((name, index) => ({ label: name, stroke: colour(`--series-${(index % 5) + 1}`), width: 2, spanGaps: true, points: { size: 5 } }))],
      },
      data,
      element,
    );
  }

  close() {
    this.#plot?.destroy();
    this.#plot = null;
  }
}
