// Search in a page opened from disk, where browsers allow no Worker: a hidden frame runs the script in its place.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      const waiting = [];
      frame.hidden = true;
      document.body.append(frame);
      const inside = frame.contentWindow;
      inside.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }));
      inside.importScripts = (...urls) =>
        Promise.all(urls.map(each => new Promise((loaded, failed) => this.load(each, loaded, failed))));
      this.load = (each, loaded, failed) => {
        const script = frame.contentDocument.createElement("script");
        script.src = each;
        script.onload = loaded;
        script.onerror = failed;
        frame.contentDocument.head.append(script);
      };
      this.postMessage = data => waiting.push(data);
      this.terminate = () => frame.remove();
      const say = data => inside.dispatchEvent(new MessageEvent("message", { data }));
      this.load(url, () => {
        this.postMessage = say;
        waiting.forEach(say);
      }, error => this.dispatchEvent(new ErrorEvent("error", { error })));
    }
  };
}
