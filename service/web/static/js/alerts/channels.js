// The list of channels, each with a test.

import { post } from "../shared/api.js";
import { attempt } from "../shared/attempt.js";
import { make, setText } from "../shared/dom.js";
import { CHANNEL_KINDS } from "./channel-form.js";

/**
 * @param {Api.AlertChannel[]} channels
 * @param {{ onEdit: (channel: Api.AlertChannel) => void, onRemove: (channel: Api.AlertChannel) => void }} options
 */
export function channelTable(channels, { onEdit, onRemove }) {
  return make(
    "table", {},
    make("caption", { class: "unseen" }, "Channels, by name"),
    make("thead", {}, make(
      "tr", {}, ...["Channel", "Kind", "To", "Alerts"].map((name) => make("th", { scope: "col" }, name)),
      make("th", { scope: "col" }, make("span", { class: "unseen" }, "Test and change")),
    )),
    make("tbody", {}, ...channels.map((channel) => {
      const isFixed = channel.managed_by === "file";
      const words = make("p", { class: "reason", role: "status" });
      const test = make("button", { type: "button", "aria-label": `Test ${channel.id}` }, "Test");
      test.addEventListener("click", () => attempt(words, async () => {
        setText(words, "Sending …");
        const { is_delivered: isDelivered, status, error } = await post("/api/v1/alert-channels/{channel_id}/test", { path: { channel_id: channel.id } });
        setText(words, isDelivered ? `Delivered${status ? ` (${status})` : ""}.` : `Not delivered: ${error ?? status}.`);
      }, test));
      return make(
        "tr", { class: channel.enabled ? "" : "off" },
        make("th", { scope: "row" }, channel.id, make("span", { class: "muted reason" }, isFixed ? "set by a file" : channel.enabled ? "" : "off")),
        make("td", {}, CHANNEL_KINDS[channel.kind]),
        make("td", { class: "address" }, address(channel)),
        make("td", {}, channel.kind === "ping" ? "" : `from ${channel.min_severity} on`),
        make(
          "td", { class: "number actions" }, test,
          isFixed ? null : make("button", { type: "button", "aria-label": `Change ${channel.id}`, onclick: () => onEdit(channel) }, "Change"),
          isFixed ? null : make("button", { type: "button", class: "quiet", "aria-label": `Remove ${channel.id}`, onclick: () => onRemove(channel) }, "Remove"),
          words,
        ),
      );
    })),
  );
}

/** @param {Api.AlertChannel} channel */
function address(channel) {
  return channel.url ?? channel.urls?.join(", ") ?? channel.recipients?.join(", ") ?? "";
}
