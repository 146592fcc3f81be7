"""The script of the gateway's Lua filter: which model a request is for, from its path, its JSON body or its gRPC call.

Decides where the name is looked for, what is refused on the way, and what the filter tells the routes. How a body is
read is decided in :mod:`~nearcast.gateway.render.lua_json` and :mod:`~nearcast.gateway.render.lua_grpc`. Headers of
which there must be one are refused when they came several times, where Envoy itself would pass them on.
"""

from typing import Final

from nearcast.gateway.render import answers
from nearcast.gateway.render.lua_grpc import CALLED
from nearcast.gateway.render.lua_json import SCAN
from nearcast.resources import wire

GC_PAUSE_PERCENT: Final = 1000
"""Lua's heap may grow to so much of what was in use at the last collection, some 100 KB, before the next one."""

HANDLER: Final = (
    r"""
local BASE, SERVICE, EMPTY = byte("m"), "@SERVICE@", "the body is empty"

-- Envoy makes a coroutine and some strings per request, and by default Lua looks through all that it holds as soon as
-- that has doubled, which is after some dozens of requests. It holds little, so it may wait for more.
collectgarbage("setpause", @PAUSE@)

local function from_body(handle)
  local body = handle:body()
  if not body then return nil, EMPTY end
  local size, longest = body:length(), 0
  if size <= 2 * NEAR then return short(body:getBytes(0, size)) end
  local function bytes(from, count)
    if count > longest then longest = count end
    return body:getBytes(from, count)
  end
  local model, why = nearcast_model(size, bytes)
  -- A long document shall not lie about, nor be what the wait is measured by.
  if longest > 2 * NEAR then collectgarbage() end
  return model, why
end

-- The model that a path below /v1 names, and whether a body may name it instead.
local function from_v1(path, based)
  if sub(path, 5, 10) ~= "models" then return based, not based end
  if match(path, "^/?$", 11) or find(path, "^/?%?", 11) then return nil, false end
  local model = match(path, "^/([^?]+)", 11) or based
  return model, not model
end

-- Whether a name may become a header: it has characters, all of them visible ASCII.
local function visible(name)
  for i = 1, #name do
    local c = byte(name, i)
    if c < 33 or c > 126 then return false end
  end
  return name ~= ""
end

-- Refuses a request with several headers of which there must be one: whoever reads it next would choose one of them,
-- and another reader another one.
local function several(handle, headers, name)
  headers:replace("@REPEATED@", "1")
  handle:respond({[":status"] = "400"}, "expected one " .. name .. ", got several")
  return true
end

-- Whether that was done. What comes several times in one line is told by its commas.
local function repeats(handle, headers, name)
  local value = headers:get(name)
  if not value or (not find(value, ",", 1, true) and headers:getNumValues(name) == 1) then return false end
  return several(handle, headers, name)
end

-- The model of a call of the Open Inference Protocol over gRPC; nil where it names none, or was refused (then true).
local CALLS = {ModelInfer = true, ModelReady = true, ModelMetadata = true,
  ServerLive = false, ServerReady = false, ServerMetadata = false}
local function from_call(handle, name)
  local headers = handle:headers()
  local content = headers:get("content-type") or "none"
  local status, why = nil, nil
  local model
  if repeats(handle, headers, "grpc-timeout") then return nil, true end
  if content ~= "application/grpc" and content ~= "application/grpc+proto" then
    status, why = "415", "expected a gRPC call, with content-type application/grpc, got " .. content
  elseif headers:get(":method") ~= "POST" or handle:streamInfo():protocol() ~= "HTTP/2" then
    status, why = "415", "expected a gRPC call, which is a POST over HTTP/2"
  elseif CALLS[name] == nil then
    status, why = "501", "the method " .. sub(name, 1, 64) .. " is not supported: expected ModelInfer, ModelReady,"
      .. " ModelMetadata, ServerLive, ServerReady or ServerMetadata"
  elseif CALLS[name] then
    local body = handle:body()
    if body then
      local function bytes(from, count) return body:getBytes(from, count) end
      model, why, status = nearcast_called(body:length(), bytes)
    else
      why = "there is no message"
    end
    if not model and not status then
      handle:headers():replace("@ERROR@", "@MODEL_REQUIRED@")
      status, why = "400", "expected a message that names its model in field 1: " .. why
    end
  end
  if not status then return model end
  handle:respond({[":status"] = status, ["grpc-accept-encoding"] = "identity"}, why)
  return nil, true
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local path = headers:get(":path")
  local based, model, asked
  -- Envoy itself joins several hosts with commas: it is one of the headers that it keeps apart from the others.
  local host = headers:get(":authority")
  if host and find(host, ",", 1, true) then return several(handle, headers, "host") end
  if byte(path, 2) == BASE then
    local rest
    based, rest = match(path, "^/m/([^/?]+)(/v1/.*)$")
    if based then
      headers:replace(":path", rest)
      path = rest
    end
  end
  local family = sub(path, 1, 4)
  if family == "/v1/" then
    model, asked = from_v1(path, based)
  elseif family == "/v2/" then
    model = match(path, "^/v2/models/([^/?]+)")
    if repeats(handle, headers, "@JSON_LENGTH@") then return end
  elseif sub(path, 1, #SERVICE) == SERVICE then
    local refused
    model, refused = from_call(handle, sub(path, #SERVICE + 1))
    if refused then return end
    headers = handle:headers()
  end
  if asked then
    local why
    model, why = from_body(handle)
    headers = handle:headers()
    if not model and (why ~= EMPTY or headers:get(":method") == "POST") then
      headers:replace("@ERROR@", "@MODEL_REQUIRED@")
      local expected = 'expected a JSON object with one string "model" at its top level: '
      handle:respond({[":status"] = "400"}, expected .. why)
      return
    end
  end
  if model then
    if not visible(model) then model = "(not a name)" end
    headers:replace("@MODEL@", model)
  end
end
""".replace("@ERROR@", wire.ERROR)
    .replace("@MODEL_REQUIRED@", wire.CODE_MODEL_REQUIRED)
    .replace("@MODEL@", wire.MODEL)
    .replace("@SERVICE@", wire.GRPC_SERVICE_PATH)
    .replace("@PAUSE@", str(GC_PAUSE_PERCENT))
    .replace("@JSON_LENGTH@", wire.INFERENCE_HEADER_LENGTH)
    .replace("@REPEATED@", answers.REPEATED)
)

MODEL_OF_REQUEST: Final = SCAN + CALLED + HANDLER
"""The whole script of the Lua filter."""
