"""The Lua that finds "model" at the top level of a JSON body.

It hops from quote to quote instead of parsing (ADR 003): first and last 4 KiB before anything else, the whole document
only when the key is in neither. It decides no more than a name. It does not check that the body is well-formed, nor,
above 8 KiB, that the key stands there once: the engine does both, and refuses a body whose model is not the one in
``x-nearcast-model``, so no difference between two parsers can lead around a policy.

The work is bounded: every loop moves forward through the body, and a scan that has hopped :data:`MAX_HOPS` times gives
up with a 400 (a body made of brackets could hold a worker otherwise).
"""

from typing import Final

NEAR_BYTES: Final = 4096
MAX_HOPS: Final = 200_000

SCAN: Final = r"""
local byte, char, find, gsub, match, sub = string.byte, string.char, string.find, string.gsub, string.match, string.sub
local NEAR, MAX_HOPS, LONGEST = @NEAR@, @MAX_HOPS@, 255
local QUOTE, COMMA, BACKSLASH, COLON, OPEN, CLOSE, OPEN_LIST, CLOSE_LIST = 34, 44, 92, 58, 123, 125, 91, 93
local CUT, ODD = "the document is cut off", "the body is not well-formed JSON"
local FAR = "too many parts stand before it; put it first or last"

-- The index of the first character at or after i that is not white space; nil after NEAR bytes of nothing else.
local function solid(text, i)
  local c = byte(text, i)
  if not c or c > 32 then return c and i end
  local at = find(sub(text, i, i + NEAR), "%S")
  return at and i + at - 1
end

-- The index of the quote that closes the string whose content starts at i.
local function string_end(text, i)
  while true do
    local quote = find(text, '"', i, true)
    if not quote then return nil end
    local before = quote - 1
    while before >= i and byte(text, before) == BACKSLASH do before = before - 1 end
    if (quote - before) % 2 == 1 then return quote end
    i = quote + 1
  end
end

local function unescaped(letter, digits)
  if letter ~= "u" then
    return (letter == '"' or letter == "\\" or letter == "/") and letter .. digits or "?" .. digits
  end
  local code = #digits == 4 and tonumber(digits, 16)
  return code and code < 128 and char(code) or "?"
end

local function unescape(text)
  if not find(text, "\\", 1, true) then return text end
  return (gsub(text, "\\(.)(%x?%x?%x?%x?)", unescaped))
end

-- The string value that starts at i.
local function value_at(text, i)
  if not i then return nil, CUT end
  if byte(text, i) ~= QUOTE then return nil, "it is not a string" end
  local quote = string_end(text, i + 1)
  if not quote then return nil, CUT end
  if quote - i - 1 > LONGEST then return nil, "it is longer than " .. LONGEST .. " bytes" end
  return unescape(sub(text, i + 1, quote - 1))
end

-- The index after the list or object that opens at i, and the hops left. Looks ahead for each kind of character by
-- itself, so that long runs of numbers or text cost one search.
local function skip(text, i, hops)
  local ahead = {["["] = 0, ["]"] = 0, ["{"] = 0, ["}"] = 0, ['"'] = 0}
  local depth = 0
  while hops > 0 do
    hops = hops - 1
    local at, kind = nil, nil
    for letter, known in pairs(ahead) do
      if known and known < i then
        known = find(text, letter, i, true) or false
        ahead[letter] = known
      end
      if known and (not at or known < at) then at, kind = known, letter end
    end
    if not at then return nil, hops, CUT end
    if kind == '"' then
      at = string_end(text, at + 1)
      if not at then return nil, hops, CUT end
    elseif kind == "[" or kind == "{" then
      depth = depth + 1
    else
      depth = depth - 1
      if depth == 0 then return at + 1, hops end
    end
    i = at + 1
  end
  return nil, 0, FAR
end

-- "model" of the object in text, from the front. With `first`, the first one is taken and the rest not looked at.
local function forward(text, first)
  local i = solid(text, 1)
  if not i or byte(text, i) ~= OPEN then return nil, "the body is not a JSON object" end
  i = i + 1
  local model, hops = nil, MAX_HOPS
  while true do
    i = solid(text, i)
    while i and byte(text, i) == COMMA and hops > 0 do
      hops = hops - 1
      i = solid(text, i + 1)
    end
    if not i then return nil, CUT end
    if byte(text, i) == CLOSE then return model, model == nil and "it is missing" or nil end
    if byte(text, i) ~= QUOTE then return nil, ODD end
    local quote = string_end(text, i + 1)
    local colon = quote and solid(text, quote + 1)
    local start = colon and solid(text, colon + 1)
    if not start then return nil, CUT end
    if byte(text, colon) ~= COLON then return nil, ODD end
    if unescape(sub(text, i + 1, quote - 1)) == "model" then
      if model then return nil, "it stands there twice" end
      local why
      model, why = value_at(text, start)
      if not model then return nil, why end
      if first then return model end
    end
    local opening, why = byte(text, start), CUT
    if opening == QUOTE then
      i = string_end(text, start + 1)
      i = i and i + 1
    elseif opening == OPEN or opening == OPEN_LIST then
      i, hops, why = skip(text, start, hops)
    else
      i = find(sub(text, start, start + NEAR), "[,}]")
      i = i and start + i - 1
    end
    if not i then return nil, why end
    hops = hops - 1
    if hops <= 0 then return nil, FAR end
  end
end

-- "model" as a key of the outermost object in the last bytes of a document. The end is outside of every string, so
-- depth and strings are known when one walks backwards.
local function backward(tail)
  local first = find(tail, '"model"', 1, true)
  if not first then return nil end
  local depth, closing = 0, nil
  local i = #tail
  while i >= first do
    local c = byte(tail, i)
    if c == QUOTE then
      local before = i - 1
      while before > 0 and byte(tail, before) == BACKSLASH do before = before - 1 end
      if before == 0 then return nil end
      if (i - before) % 2 == 1 then
        if not closing then
          closing = i
        else
          if depth == 1 and closing - i == 6 and sub(tail, i, closing) == '"model"' then
            local colon = solid(tail, closing + 1)
            if colon and byte(tail, colon) == COLON then return value_at(tail, solid(tail, colon + 1)) end
          end
          closing = nil
        end
      end
      i = before + 1
    elseif not closing then
      if c == CLOSE or c == CLOSE_LIST then
        depth = depth + 1
      elseif c == OPEN or c == OPEN_LIST then
        depth = depth - 1
        if depth <= 0 then return nil end
      end
    end
    i = i - 1
  end
end

-- Whether a letter of a key may be spelled by its number: those of "model" all begin \u006. Digits are rarer in prose
-- than backslashes, and a search stops at each of its first character.
local function spelled(text)
  return find(text, "006", 1, true) and find(text, "\\u006", 1, true)
end

-- "model" as the very first key, written as serializers do, at the start of text; nil for anything else. No patterns:
-- LuaJIT compiles no function that matches one.
local function leading(text)
  if byte(text, 1) ~= OPEN or byte(text, 9) ~= COLON then return nil end
  local start = byte(text, 10) == 32 and 11 or 10
  if byte(text, start) ~= QUOTE then return nil end
  local quote = find(text, '"', start + 1, true)
  if not quote or quote - start - 1 > LONGEST then return nil end
  local after = byte(text, quote + 1)
  if after ~= COMMA and after ~= CLOSE then return nil end
  local model = sub(text, start + 1, quote - 1)
  return not find(model, "\\", 1, true) and model or nil
end

-- "model" of a whole document that cannot hold the key twice: it stands there once, and none of its letters is spelled
-- by its number. Found as the first key, or in the last, flat part; nil for anything else.
local function single(text)
  local at = find(text, '"model"', 1, true)
  if not at or byte(text, #text) ~= CLOSE then return nil end
  if find(text, '"model"', at + 7, true) or spelled(text) then return nil end
  if at == 2 then
    local model = leading(text)
    if model then return model end
  end
  local model = match(text, '^%s*{%s*"model"%s*:%s*"([^"\\]*)"%s*[,}]')
  if model then return #model <= LONGEST and model or nil end
  return find(text, "[%[%]{}]", at + 7) == #text and backward(text) or nil
end

-- The model of a short document, all of which is looked at. Else nil and why.
local function short(text)
  local model = single(text)
  if model then return model end
  return forward(text, false)
end

-- The model of a document of `size` bytes; bytes(from, count) reads it (from counts from 0). Else nil and why.
function nearcast_model(size, bytes)
  if size <= 2 * NEAR then return short(bytes(0, size)) end
  local head = bytes(0, NEAR)
  if byte(head, solid(head, 1) or 1) ~= OPEN then return nil, "the body is not a JSON object" end
  -- Where the word does not stand the key does not: to see that costs a fifth of hopping through.
  local near = (find(head, '"model"', 1, true) or spelled(head)) and forward(head, true)
  near = near or backward(bytes(size - NEAR, NEAR))
  if near then return near end
  return forward(bytes(0, size), true)
end
""".replace("@NEAR@", str(NEAR_BYTES)).replace("@MAX_HOPS@", str(MAX_HOPS))
