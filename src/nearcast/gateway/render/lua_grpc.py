"""The Lua that finds the model in the message of a gRPC call.

The model's name is field 1 of every message of the Open Inference Protocol that has one (ADR 007). Fields are hopped
over, :data:`MAX_FIELDS` at most, and no tensor is looked at. Uses the local names of
:mod:`~nearcast.gateway.render.lua_json`, which stands before it in the script.
"""

from typing import Final

MAX_FIELDS: Final = 4096

CALLED: Final = r"""
-- The varint at i of text, and the index behind it; nil where it is cut off or too long.
local function varint(text, i)
  local value, unit = 0, 1
  for at = i, i + 9 do
    local c = byte(text, at)
    if not c then return nil end
    value = value + (c % 128) * unit
    if c < 128 then return value, at + 1 end
    unit = unit * 128
  end
end

-- The first string of number 1 in a gRPC message of `size` bytes, its prefix of five included: where requests of the
-- Open Inference Protocol name their model. Else nil and why. Serializers write it first; others may stand before it.
function nearcast_called(size, bytes)
  local base, text = 0, bytes(0, size < NEAR and size or NEAR)
  if size < 5 then return nil, CUT end
  local flag, a, b, c, d = byte(text, 1, 5)
  if flag ~= 0 then return nil, "compressed messages are not supported: send them as they are (identity)", "501" end
  if ((a * 256 + b) * 256 + c) * 256 + d ~= size - 5 then return nil, "the body is not exactly one message" end
  local at = 5
  for _ = 1, MAX_FIELDS do
    if at == size then return nil, "it is missing" end
    if at - base + 20 > #text and base + #text < size then
      base, text = at, bytes(at, size - at < NEAR and size - at or NEAR)
    end
    local tag, i = varint(text, at - base + 1)
    local kind, length = tag and tag % 8, 0
    if not tag then
      return nil, CUT
    elseif kind == 2 then
      length, i = varint(text, i)
      if not length then return nil, CUT end
    elseif kind == 0 then
      length, i = 0, select(2, varint(text, i))
      if not i then return nil, CUT end
    elseif kind == 1 then
      length = 8
    elseif kind == 5 then
      length = 4
    else
      return nil, "the message is not well-formed"
    end
    at = base + i - 1 + length
    if at > size then return nil, CUT end
    if tag == 10 then
      if length == 0 then return nil, "it is empty" end
      if length > LONGEST then return nil, "it is longer than " .. LONGEST .. " bytes" end
      return bytes(at - length, length)
    end
  end
  return nil, FAR
end
""".replace("MAX_FIELDS", str(MAX_FIELDS))
