#!/bin/sh
# Ask for the digit in one picture, and for the outlook of one patient, with nothing but curl.
#   sh ask.sh GATEWAY_URL
set -eu
gateway=${1:?usage: ask.sh GATEWAY_URL}

# the first picture of scikit-learn's digits (a zero), 8 rows of 8 pixels from 0 to 16
curl -sS --fail-with-body -i "$gateway/v2/models/digits/infer" -H 'content-type: application/json' -d '{"inputs": [{
  "name": "pixels", "shape": [1, 64], "datatype": "FP32", "data": [
     0, 0, 5,13, 9, 1, 0, 0,   0, 0,13,15,10,15, 5, 0,   0, 3,15, 2, 0,11, 8, 0,   0, 4,12, 0, 0, 8, 8, 0,
     0, 5, 8, 0, 0, 9, 8, 0,   0, 4,11, 0, 1,12, 7, 0,   0, 2,14, 5,10,12, 0, 0,   0, 0, 6,13,10, 0, 0, 0]}],
  "outputs": [{"name": "label"}]}'
echo

# age, sex, body mass index, blood pressure and six blood values, centred and scaled as in the data set
curl -sS --fail-with-body -i "$gateway/v2/models/diabetes/infer" -H 'content-type: application/json' -d '{"inputs": [{
  "name": "features", "shape": [1, 10], "datatype": "FP32", "data": [
    0.0381, 0.0507, 0.0617, 0.0219, -0.0442, -0.0348, -0.0434, -0.0026, 0.0199, -0.0176]}]}'
echo
