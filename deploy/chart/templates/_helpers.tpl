{{/* Names: the release's, so that several stand side by side in a namespace. */}}
{{- define "ganserve.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 52 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "ganserve.selector" -}}
app.kubernetes.io/name: ganserve
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "ganserve.labels" -}}
{{ include "ganserve.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* An image's full name: called with the root and a repository. */}}
{{- define "ganserve.image" -}}
{{- $root := index . 0 }}
{{- printf "%s:%s" (index . 1) ($root.Values.image.tag | default $root.Chart.AppVersion) | quote }}
{{- end }}

{{/* Resources of a container: called with what the values say of it, a GPU among them where it is asked for. */}}
{{- define "ganserve.resources" -}}
{{- $limits := ternary (dict "nvidia.com/gpu" 1) dict .gpu.enabled }}
{{- toYaml (mergeOverwrite (deepCopy .resources) (dict "limits" $limits)) }}
{{- end }}

{{/* Whether anything lies on the volume: models, or uploads and checkpoints. */}}
{{- define "ganserve.onVolume" -}}
{{- if not (and .Values.models .Values.store) }}yes{{ end }}
{{- end }}

{{/* Whether the volume, and SQLite on it, keeps all pods on one node. */}}
{{- define "ganserve.oneNode" -}}
{{- if and (include "ganserve.onVolume" .) (hasPrefix "ReadWriteOnce" .Values.volume.accessMode) }}yes{{ end }}
{{- end }}

{{/* What cannot work is refused here, with what would. */}}
{{- define "ganserve.check" -}}
{{- $replicas := or (gt (int .Values.service.replicas) 1) .Values.autoscaling.enabled .Values.operators.enabled }}
{{- if and $replicas (not .Values.secret) }}
{{- fail "several replicas need one admin token and one queue: name a Secret with admin-token and jobs-db as `secret`" }}
{{- end }}
{{- if and .Values.autoscaling.enabled .Values.operators.enabled }}
{{- fail "autoscaling and operators both scale the service: enable one of them" }}
{{- end }}
{{- if and (not .Values.secret) (gt (int .Values.worker.replicas) 1) }}
{{- fail "several workers need PostgreSQL as their queue: name a Secret with jobs-db as `secret`" }}
{{- end }}
{{- if and .Values.ingress.enabled (not .Values.ingress.host) }}
{{- fail "ingress needs a host" }}
{{- end }}
{{- range list .Values.models .Values.store }}
{{- if contains "@" . }}
{{- fail "no credentials in a URL: put them into a Secret and name it as `storeSecret`" }}
{{- end }}
{{- end }}
{{- end }}

{{/* Environment of service and worker alike. */}}
{{- define "ganserve.environment" -}}
- {name: GANSERVE_MODELS, value: {{ .Values.models | default "/srv/ganserve/models" | quote }}}
- {name: GANSERVE_DATA, value: /srv/ganserve/var}
{{- with .Values.store }}
- {name: GANSERVE_STORE, value: {{ . | quote }}}
{{- end }}
- {name: GANSERVE_LOG_FORMAT, value: json}
- {name: HOME, value: /tmp}
- {name: USER, value: ganserve}
{{- range $name, $value := .Values.settings }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- with .Values.secret }}
- name: GANSERVE_ADMIN_TOKEN
  valueFrom: {secretKeyRef: {name: {{ . | quote }}, key: admin-token, optional: true}}
- name: GANSERVE_TOKEN
  valueFrom: {secretKeyRef: {name: {{ . | quote }}, key: token, optional: true}}
- name: GANSERVE_JOBS_DB
  valueFrom: {secretKeyRef: {name: {{ . | quote }}, key: jobs-db, optional: true}}
{{- end }}
{{- end }}

{{- define "ganserve.environmentFrom" -}}
{{- with .Values.storeSecret }}
envFrom:
  - secretRef: {name: {{ . | quote }}}
{{- end }}
{{- end }}

{{- define "ganserve.mounts" -}}
{{- if not .Values.models }}
- {name: data, mountPath: /srv/ganserve/models, subPath: models}
{{- end }}
{{- if include "ganserve.onVolume" . }}
- {name: data, mountPath: /srv/ganserve/var, subPath: var}
{{- else }}
- {name: var, mountPath: /srv/ganserve/var}
{{- end }}
- {name: tmp, mountPath: /tmp}
{{- end }}

{{- define "ganserve.volumes" -}}
{{- if include "ganserve.onVolume" . }}
- name: data
  persistentVolumeClaim: {claimName: {{ .Values.volume.existingClaim | default (include "ganserve.name" .) | quote }}}
{{- else }}
- {name: var, emptyDir: {}}
{{- end }}
- {name: tmp, emptyDir: {}}
{{- end }}

{{- define "ganserve.container" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{/* Pods that share a volume of one node are kept there; a pod that is the first of them may go anywhere. */}}
{{- define "ganserve.affinity" -}}
{{- $own := index . 1 }}
{{- with index . 0 }}
{{- if $own }}
affinity: {{- toYaml $own | nindent 2 }}
{{- else if include "ganserve.oneNode" . }}
affinity:
  podAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      - topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels: {{- include "ganserve.selector" . | nindent 12 }}
{{- else }}
affinity:
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels: {{- include "ganserve.selector" . | nindent 14 }}
{{- end }}
{{- end }}
{{- end }}
