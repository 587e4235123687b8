// What the coordinator tells as it happens. Every frame is a whole view, so a frame that is missed costs nothing.

/** Follow the stream of events: `heard(state)` after each frame. Returns what ends it. */
export function follow(heard, lost) {
  const state = { tasks: new Map(), role: "", version: "", ahead: 0, connected: false };
  const source = new EventSource("/v1/events");
  let drawn = 0;
  // many frames between two pictures are one picture
  const draw = () => {
    drawn ||= requestAnimationFrame(() => {
      drawn = 0;
      heard(state);
    });
  };
  source.addEventListener("hello", ({ data }) => {
    const hello = JSON.parse(data);
    Object.assign(state, { role: hello.role, version: hello.version, connected: true });
    for (const known of [...state.tasks.keys()]) if (!hello.tasks.includes(known)) state.tasks.delete(known);
    draw();
  });
  source.addEventListener("task", ({ data }) => {
    const view = JSON.parse(data);
    state.ahead = view.server_time - Date.now() / 1000;
    state.tasks.set(view.id, view);
    draw();
  });
  source.addEventListener("over", ({ data }) => {
    source.close();
    lost(JSON.parse(data));
  });
  source.onerror = () => {
    state.connected = false;
    draw();
    // a refused stream is not tried again by the browser
    if (source.readyState === EventSource.CLOSED) lost("the coordinator refused the stream of events");
  };
  const clock = setInterval(draw, 1000); // times left
  return () => {
    source.close();
    clearInterval(clock);
    cancelAnimationFrame(drawn);
  };
}
