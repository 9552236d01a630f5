{{/* Names, labels, images, secrets: what every template needs. */}}

{{- define "k2d.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* At most 40 characters: the longest suffix, "-validator-pods-" and a pod's ordinal, must fit 63. */}}
{{- define "k2d.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "k2d.name" .) .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "k2d.name" .) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Labels that select a part's pods; never change them in an upgrade. Call with (dict "root" $ "part" "api"). */}}
{{- define "k2d.selector" -}}
app.kubernetes.io/name: {{ include "k2d.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end }}

{{- define "k2d.labels" -}}
{{ include "k2d.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: k2d
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "k2d.meta" -}}
name: {{ include "k2d.fullname" .root }}{{ with .suffix }}-{{ . }}{{ end }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "k2d.labels" . | nindent 2 }}
{{- end }}

{{/* Call with (dict "root" $ "image" .Values.api.image "suffix" ""); an image's own tag gets no suffix. */}}
{{- define "k2d.image" -}}
{{- $registry := default .root.Values.image.registry .image.registry }}
{{- with $registry }}{{ . | trimSuffix "/" }}/{{ end }}
{{- .image.repository }}:{{ default (print (default .root.Chart.AppVersion .root.Values.image.tag) (default "" .suffix)) .image.tag }}
{{- end }}

{{- define "k2d.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "k2d.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "k2d.redisSecret" -}}
{{- default (printf "%s-redis" (include "k2d.fullname" .)) .Values.redis.existingSecret }}
{{- end }}

{{- define "k2d.redisKey" -}}
{{- if .Values.redis.existingSecret }}{{ .Values.redis.secretKey }}{{ else }}password{{ end }}
{{- end }}

{{- define "k2d.tokenSecret" -}}
{{- if .Values.auth.existingSecret }}
{{- .Values.auth.existingSecret }}
{{- else if .Values.auth.token }}
{{- include "k2d.fullname" . }}-token
{{- end }}
{{- end }}

{{- define "k2d.tokenKey" -}}
{{- if .Values.auth.existingSecret }}{{ .Values.auth.secretKey }}{{ else }}token{{ end }}
{{- end }}

{{- define "k2d.lakeClaim" -}}
{{- default (printf "%s-lake" (include "k2d.fullname" .)) .Values.store.volume.existingClaim }}
{{- end }}

{{/*
Where workers find a role's model: every pod of its servers by name, comma-separated. Workers route to the least busy
one, which a service's single address hides from them: a gRPC connection, or a kept HTTP one, stays with one pod.
Call with (dict "root" $ "role" "teacher").
*/}}
{{- define "k2d.address" -}}
{{- $part := index .root.Values .role }}
{{- if $part.enabled }}
{{- $name := printf "%s-%s" (include "k2d.fullname" .root) .role }}
{{- $addresses := list }}
{{- range $pod := until (int $part.replicas) }}
{{- if eq $part.host "triton" }}
{{- $addresses = append $addresses (printf "grpc://%s-%d.%s-pods:8001/%s" $name $pod $name $.role) }}
{{- else }}
{{- $addresses = append $addresses (printf "http://%s-%d.%s-pods:8000" $name $pod $name) }}
{{- end }}
{{- end }}
{{- join "," $addresses }}
{{- else }}
{{- $part.address }}
{{- end }}
{{- end }}
